"""The command line: `commands` holds what a person types, `screen` what a person sees."""
