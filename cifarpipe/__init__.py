"""Train, evaluate and explain CIFAR-10 image classifiers. Knows nothing of DVC."""
