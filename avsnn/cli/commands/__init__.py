"""What a person types: one file per command group. A command calls the pipeline, then prints."""
