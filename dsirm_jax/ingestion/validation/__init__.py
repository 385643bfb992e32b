"""Single rows: checked, cleaned and staged."""
