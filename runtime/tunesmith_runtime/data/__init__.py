"""Data to train on: formats read rows as records, encoders turn records into token ids with labels, `load` applies both."""
