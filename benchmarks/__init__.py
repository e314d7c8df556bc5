"""Benchmarks, one command each, which compare avsnn with named alternatives; and their helpers."""
