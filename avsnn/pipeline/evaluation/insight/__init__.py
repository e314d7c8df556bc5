"""What happens inside a network while it answers: spikes, operations, time steps, attention."""
