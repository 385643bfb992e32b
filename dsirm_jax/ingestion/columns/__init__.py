"""Which columns of a user's table are ours, and what stands in them."""
