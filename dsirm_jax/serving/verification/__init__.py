"""What the forms of a bundle answer, and how far two answers are from each other."""
