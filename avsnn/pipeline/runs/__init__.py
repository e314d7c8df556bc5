"""A run folder: settings, identity, metrics, checkpoints."""
