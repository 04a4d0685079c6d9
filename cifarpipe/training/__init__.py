"""Training a network: the loop, its batches, optimizers, execution, and resumption."""
