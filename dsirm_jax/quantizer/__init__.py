"""Dense vectors to semantic identifiers: the query-bridged residual quantizer."""
