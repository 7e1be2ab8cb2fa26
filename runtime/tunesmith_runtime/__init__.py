"""The runtime: what runs in the pods. One verb a container: fetch, train, export, evaluate, serve."""
