"""Files of judgements in layouts of their own, not tables: each kind a file, behind `kind`."""
