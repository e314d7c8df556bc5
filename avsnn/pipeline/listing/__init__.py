"""Lists what exists: data sets, the progress of their stages, and runs. Writes nothing."""
