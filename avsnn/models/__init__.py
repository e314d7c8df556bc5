"""The spiking networks: pure torch, no I/O, no data set names."""

# `methods` fills the registry. `ModelSettings` checks names against the registry, so the registry
# must be full before a caller can import `ModelSettings`.
import avsnn.models.methods  # noqa: F401
