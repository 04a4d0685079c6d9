"""Parameter files as nobody should write them; `make torture` tries ten thousand of them."""

from benchmarks.torture.hostile import strange_parameters
from tests.support.dag_setting import ROOT


def test_strange_files_are_refused_in_words_or_make_a_network() -> None:
    found = strange_parameters(150, ROOT / "params.yaml")
    assert found.wrong == 0, found.outcome
    assert found.times == 150
    refused, accepted = (int(part.split()[0]) for part in found.outcome.split(", "))
    assert refused + accepted == 150
    assert min(refused, accepted) > 5
