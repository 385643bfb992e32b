"""A scorer behind HTTP."""
