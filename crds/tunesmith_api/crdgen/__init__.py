"""Generator of the files that describe the types of `tunesmith_api`: CRDs, the chart's copies, reference pages."""
