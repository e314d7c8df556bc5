"""How a network answers to noisy, missing and swapped inputs."""
