"""Benchmarks: each module is one command and compares avsnn with named alternatives."""
