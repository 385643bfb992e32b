"""Scores from a bundle's models and catalogue, in this process."""
