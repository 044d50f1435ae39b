"""The fabric: one core and a thousand GPUs look alike. Checkpoints, precision, the mesh of ranks."""
