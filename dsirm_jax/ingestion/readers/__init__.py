"""Readers of input: one file each, chosen in gin by its class; see `reader.Reader`."""
