"""CPU cores and GPU sharing of this process."""

import os

SHARE_GPUS = "CIFARPIPE_SHARE_GPU"  # variable; if it is set, but not to 0, trainings share GPUs


def shares_gpus() -> bool:
    """Return whether trainings on this machine are to share GPUs."""
    return os.environ.get(SHARE_GPUS, "0") not in ("", "0")


def cores() -> int:
    """Return how many CPU cores this process may use; all of them where the system can't tell."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
