"""Networks that read a query and write a SID: one file a kind, all behind one protocol."""
