"""What FineTuneJob and EvalJob share: attempts, retries, queues, accounting, and the Job manifest."""
