"""What the four learnt stages share: the loop, checkpoints, placements and progress."""
