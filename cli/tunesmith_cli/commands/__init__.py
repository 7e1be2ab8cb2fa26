"""The commands. Each has a module with a click command `COMMAND`, which `tunesmith_cli.main` imports when it runs."""
