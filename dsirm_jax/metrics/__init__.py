"""Pure metric functions: ranking, classification, codebook health, bootstrap."""
