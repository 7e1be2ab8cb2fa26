"""What holds for all tiers."""

from hypothesis import settings

# Hypothesis would fail an example that takes 200 ms, which any may on a busy machine.
settings.register_profile("tunesmith", deadline=None)
settings.load_profile("tunesmith")
