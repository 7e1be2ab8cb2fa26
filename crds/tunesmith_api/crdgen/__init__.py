"""Makes, from the types in `tunesmith_api`, every file that describes them: CRDs, the chart's copies, reference pages."""
