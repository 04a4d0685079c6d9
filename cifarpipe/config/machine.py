"""What the machine offers to this process."""

import os

SHARE_GPUS = "CIFARPIPE_SHARE_GPU"  # variable; set to anything, trainings share GPUs


def cores() -> int:
    """Return how many CPU cores this process may use; all of them where the system can't tell."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
