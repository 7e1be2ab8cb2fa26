"""The runtime. Each container of a pod runs a verb: prepare, fetch, train, export, evaluate or serve."""
