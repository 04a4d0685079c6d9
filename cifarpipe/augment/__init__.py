"""Random augmentation of training images, for whole batches on any device."""
