"""Text generation with continuous batching: rows join and leave a running batch, each with its own sampling and adapter."""
