"""Speed, start and memory of mgdcircuits beside PyTorch, JAX and plain Brian2; see README.md."""
