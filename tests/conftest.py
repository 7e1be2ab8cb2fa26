"""What holds for all tiers."""

from hypothesis import settings

from tests.examples import examples

# Hypothesis would fail an example that takes 200 ms, which any may on a busy machine.
settings.register_profile("tunesmith", deadline=None, max_examples=examples(20))
settings.load_profile("tunesmith")
