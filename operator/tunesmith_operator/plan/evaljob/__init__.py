"""EvalJob: one Job for the model and one for the baseline, then results, gates and the verdict."""
