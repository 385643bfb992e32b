"""What a finished run becomes to be served: one folder, and what answers from it."""
