"""What many tests share."""

import os

# Tests run in several processes: one thread each, or they wait for one another. Before torch loads,
# and in the environment, so that the commands which tests start do likewise.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from cifarpipe.params import Params, load_params


@pytest.fixture(scope="session")
def demo_params() -> Params:
    return load_params("params.demo.yaml")
