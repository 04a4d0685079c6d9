"""Using a network: devices, normalisation, images in memory, inference, checkpoints."""
