"""How answers are read and compared, in evaluations and in rewards of completions alike. Pure functions."""
