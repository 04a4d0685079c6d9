"""What many tests share."""

import pytest

from cifarpipe.params import Params, load_params


@pytest.fixture(scope="session")
def demo_params() -> Params:
    return load_params("params.demo.yaml")
