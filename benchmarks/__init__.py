"""Ratios against named alternatives, one command each."""
