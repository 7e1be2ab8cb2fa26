"""Pictures: which files are pictures, and the pixels of one. Training, evaluation and serving read them with this code."""
