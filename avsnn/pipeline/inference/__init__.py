"""A network and its answers: what training and evaluation both need."""
