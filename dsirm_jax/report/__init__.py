"""One self-contained page from a finished MODEL_DIR."""
