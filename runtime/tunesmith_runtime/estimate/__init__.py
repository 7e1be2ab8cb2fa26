"""What a FineTuneJob will need: memory per device, disk, download, steps, tokens and hours, from sizes alone.

Nothing here imports torch, transformers or a Kubernetes client, and nothing is read: callers pass the content of config.json,
the headers of safetensors files and the lengths of rows. The command line, the preparation pod and the tests share it.
"""
