"""Decoders: files in, arrays out, and one sentence where a file cannot be used."""
