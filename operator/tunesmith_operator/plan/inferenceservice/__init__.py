"""InferenceService: versions, promotion, roll-out and the objects that serve."""
