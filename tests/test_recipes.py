"""The files of trials in docs/recipes/: all can be run, and what they say is what is run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.recipes import changed, markdown, parameters, yaml
from cifarpipe.params import Params

FILES = sorted((Path(__file__).parents[1] / "docs/recipes").glob("*.yaml"))


def study(name: str) -> dict[str, Any]:
    (file,) = [each for each in FILES if each.stem == name]
    return yaml.load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_trial_can_be_run(file: Path) -> None:
    trials = study(file.stem)
    params = Params.model_validate(parameters(trials, seed=3))
    assert list(params.models) == list(trials["trials"])
    assert params.seed == 3
    for model in params.models.values():
        assert model.epochs == trials["all"]["epochs"]


def test_the_published_rates_are_theirs() -> None:
    params = Params.model_validate(parameters(study("published"), seed=0))
    assert {name: round(params.peak_lr(name), 6) for name in params.models} == {
        "vit_triangular": 0.01,
        "vit_t2t_triangular": 0.01,
        "convmixer_defaults": 0.01,
        "convmixer_best": 0.05,
        "vit_adam": 0.0001,
        "resnet18_ln_onecycle": 0.01,
        "resnet18_ln_reduced": 0.01,
    }


def test_a_change_reaches_its_place_and_nothing_else() -> None:
    entry = {"lr": 1, "augment": {"crop": 4, "mixup": {"alpha": 0.8}}}
    assert changed(entry, {"augment.mixup.alpha": 0.2}) == {
        "lr": 1, "augment": {"crop": 4, "mixup": {"alpha": 0.2}},
    }  # fmt: skip
    assert entry["augment"]["mixup"]["alpha"] == 0.8
    with pytest.raises(KeyError, match=r"augment\.crops"):
        changed(entry, {"augment.crops": 2})


def test_the_table_has_the_best_of_each_model_first() -> None:
    rows = [
        ("a", "vit", 0.4, 0),
        ("b", "vit", 0.5, 0),
        ("b", "vit", 0.6, 1),
        ("c", "mix", 0.1, 0),
    ]
    table = pd.DataFrame(rows, columns=["trial", "like", "val_acc", "seed"])
    table["changes"] = '{"lr_scale": 2}'
    assert markdown(table).splitlines()[2:] == [
        "| c | mix | lr_scale 2 | 0 | 10.00% |",
        "| b | vit | lr_scale 2 | 0, 1 | 55.00% ± 7.07% |",
        "| a | vit | lr_scale 2 | 0 | 40.00% |",
    ]
