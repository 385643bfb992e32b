"""Text to dense vectors: two towers trained on the training pairs."""
