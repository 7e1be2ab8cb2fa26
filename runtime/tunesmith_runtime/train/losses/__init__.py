"""Losses, and the log-probabilities that they are computed from."""
