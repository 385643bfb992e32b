"""Every stage's step compiled for chips that are not here: its memory and its least time."""
