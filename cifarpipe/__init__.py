"""Train, evaluate and explain CIFAR-10 image classifiers. Only `cifarpipe.cli` uses DVC."""
