"""One clip of a prepared data set as one picture."""
