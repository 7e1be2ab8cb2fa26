"""Media in the text and the tensors of a model, by the processor that is published with it. Training and serving use this code."""
