"""What an item's SID is worth to a query: a file a kind."""
