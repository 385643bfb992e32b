"""What holds for every device that work runs on: how it is fed."""
