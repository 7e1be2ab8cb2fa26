"""Training rows: loading, batches, packing and streaming."""
