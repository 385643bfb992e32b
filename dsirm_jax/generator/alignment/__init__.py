"""Aligns a fitted generator with what its SIDs are worth to queries."""
