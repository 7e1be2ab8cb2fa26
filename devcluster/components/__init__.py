"""What runs: the command line, files and readiness of every process."""
