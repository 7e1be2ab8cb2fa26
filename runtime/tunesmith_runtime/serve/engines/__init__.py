"""The engines, one module each. All have `serve(served)`, which answers requests until SIGTERM.

Engines that are servers of their own have `argv(served)` and `environment(served)` too: what they are started with.
"""
