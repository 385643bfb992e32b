"""What databases, spreadsheets and pandas write for a value that is not there."""

MISSING = (
    *("\\N", "NULL", "null", "N/A", "n/a", "NA", "#N/A", "<NA>"),
    *("NaN", "nan", "None", "-"),
)
"""Texts that `prepare` reads as missing, unless others are bound."""
