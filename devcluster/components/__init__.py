"""The components: command line, files and readiness of every process."""
