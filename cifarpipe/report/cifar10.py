"""What the report knows about CIFAR-10 in particular."""

CIFAR10_CLASSES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip
TEST_IMAGES = 10_000
