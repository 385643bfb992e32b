"""Dense and SID features to the probability that an item is relevant to a query."""
