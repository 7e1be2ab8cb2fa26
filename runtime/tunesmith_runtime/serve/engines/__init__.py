"""The engines, one module each, with the same function: `serve(served)` answers requests until SIGTERM."""
