"""The operator: turns specs into pods, and pods into status."""
