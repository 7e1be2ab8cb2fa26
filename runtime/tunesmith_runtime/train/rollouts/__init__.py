"""Rollouts: completions that a model samples while it trains, and their rewards."""
