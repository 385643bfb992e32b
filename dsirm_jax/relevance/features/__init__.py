"""Groups of features of (query, item) pairs: one module a group, each with its `GROUP`."""
