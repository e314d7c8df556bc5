"""The answers of a trained network for clips that are in no data set: what `predict` runs."""
