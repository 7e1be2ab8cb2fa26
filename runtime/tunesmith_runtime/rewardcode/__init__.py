"""Runs the user's code of a reward in a container of its own. It needs nothing but the standard library."""
