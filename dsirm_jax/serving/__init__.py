"""A finished run as one folder that any search stack can serve."""
