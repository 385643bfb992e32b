"""What lies in a bundle, and how it is read."""
