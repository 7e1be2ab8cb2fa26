"""Pure decisions: what a resource needs, from what is there. No I/O, no clock, no randomness."""
