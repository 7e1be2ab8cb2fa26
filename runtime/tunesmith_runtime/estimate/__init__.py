"""Estimate memory per device, disk, download, steps, tokens and hours of a FineTuneJob, from sizes only.

The package imports neither torch nor transformers nor a Kubernetes client, and reads no files: callers pass the content of
config.json, the headers of safetensors files and the lengths of rows. The command line, the preparation pod and the tests share it.
"""
