"""Models that are trained, and the models beside them."""
