"""Labels, and clicks that stand for them."""
