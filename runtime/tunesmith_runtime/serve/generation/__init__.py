"""Text generation with continuous batching: rows with their own sampling and adapter join and leave a running batch."""
