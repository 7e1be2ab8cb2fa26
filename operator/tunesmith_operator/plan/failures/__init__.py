"""From what the cluster reports to a failure class, a message and a hint."""
