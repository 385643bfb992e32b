"""Tables of cached queries, one file a kind: the bundle's own, and stores that machines share."""
