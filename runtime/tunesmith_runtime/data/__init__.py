"""From lines of JSON to token ids with labels: pure functions, one per row format, and the reader that applies them."""
