"""Decoders: a file in, arrays out, or one sentence that says why the file cannot be used."""
