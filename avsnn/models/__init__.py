"""The spiking networks: pure torch, no I/O, no data set names."""
