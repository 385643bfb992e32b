"""Files, arrays and errors: what everything else stands on."""
