"""Models of elsewhere made ready to start from: what `dsirm import-model` does."""
