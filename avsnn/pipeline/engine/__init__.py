"""The stage engine: units of work that are done once, whole or not at all, and can be resumed."""
