"""Fast paths of the computation."""
