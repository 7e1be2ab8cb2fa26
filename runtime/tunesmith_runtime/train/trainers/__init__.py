"""Trainers: one for each kind of loss. Methods share them."""
