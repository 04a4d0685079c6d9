"""What is left out of an import is not loaded, and says so when it is used."""

import subprocess
import sys

import pytest

from cifarpipe.explanations.imports import left_out


def test_what_is_left_out_refuses_to_be_called_and_is_there_again_afterwards() -> None:
    assert "sndhdr_of_nobody" not in sys.modules
    with left_out("sndhdr_of_nobody", "sndhdr_of_nobody.part", "json"):
        from json import loads

        from sndhdr_of_nobody.part import read  # type: ignore[import-not-found]
    assert loads("[1]") == [1]  # was loaded before
    with pytest.raises(RuntimeError, match=r"sndhdr_of_nobody\.part\.read was left out"):
        read("a file", kind=1)
    assert "json" in sys.modules
    with pytest.raises(ModuleNotFoundError):
        import sndhdr_of_nobody  # type: ignore[import-not-found]  # noqa: F401


def test_a_failed_import_leaves_no_stand_in() -> None:
    with pytest.raises(ZeroDivisionError), left_out("nobodys_module"):
        raise ZeroDivisionError
    assert "nobodys_module" not in sys.modules


def test_maps_are_computed_without_what_they_do_not_need() -> None:
    look = (
        "import sys, cifarpipe.explanations.gradcam;"
        "loaded = {'sklearn', 'torchvision', 'torch._dynamo'} & set(sys.modules);"
        "import torchvision.transforms, sklearn.decomposition;"
        "print(loaded, torchvision.transforms.Compose, sklearn.decomposition.NMF)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("set() <class 'torchvision"), done.stdout
    assert "<class 'sklearn" in done.stdout
