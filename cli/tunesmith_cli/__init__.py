"""The `tunesmith` command line: what can be known without a cluster, a device or weights."""
