"""The simulated shop: its words, its catalogue, its items, its queries with their judgements."""
