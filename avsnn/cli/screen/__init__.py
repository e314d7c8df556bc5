"""What a person sees: tables, sentences and progress. Results go to stdout, progress to stderr."""
