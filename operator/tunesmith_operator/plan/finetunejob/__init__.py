"""FineTuneJob: one attempt is a pod, or several pods that train as one process group."""
