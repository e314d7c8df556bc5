"""Looks at a folder of clips that a person has, and writes the YAML and the table of a data set."""
