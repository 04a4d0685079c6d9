"""The files of trials in docs/recipes/: all can be run, and what they say is what is run."""

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import recipes
from benchmarks.recipes import YAML_READER, changed, markdown, parameters, recipe_hash
from benchmarks.study import refresh_pipeline
from cifarpipe.config.reader import load_params
from cifarpipe.config.schema import Params

FILES = sorted((Path(__file__).parents[1] / "docs/recipes").glob("*.yaml"))


def study(name: str) -> dict[str, Any]:
    (file,) = [each for each in FILES if each.stem == name]
    return YAML_READER.load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_trial_can_be_run(file: Path, tmp_path: Path) -> None:
    trials = study(file.stem)
    recipes.YAML().dump(parameters(trials, seed=3), tmp_path / "params.yaml")
    params = load_params(tmp_path / "params.yaml")
    assert list(params.models) == list(trials["trials"])
    assert params.seed == 3
    of_vits = 12 if params.data.train_size == 5000 else 15
    for model in params.models.values():  # trials of one network are compared across the files
        assert model.epochs == (of_vits if model.arch == "vit" else 8)


def test_the_published_rates_are_theirs() -> None:
    params = Params.model_validate(parameters(study("published"), seed=0))
    rates = {
        name: (params.lr * model.lr_scale, model.batch_size)
        for name, model in params.models.items()
    }
    assert list(rates.items())[:7] == [
        ("vit_triangular", (0.01, 512)),
        ("vit_t2t_triangular", (0.01, 512)),
        ("convmixer_defaults", (0.01, 512)),
        ("convmixer_best", (0.05, 512)),
        ("vit_adam", (0.0001, 512)),
        ("resnet18_ln_onecycle", (0.01, 256)),
        ("resnet18_ln_reduced", (0.01, 128)),
    ]


def test_a_trial_depends_on_its_file_and_not_on_the_recipes_of_params() -> None:
    params = parameters(study("published"), seed=0)
    published, ours = (
        params["models"]["vit_adam"],
        YAML_READER.load(Path("params.yaml").read_text()),
    )
    assert published["dim"] == ours["models"]["vit"]["dim"]
    assert published["label_smoothing"] == 0.0 != ours["models"]["vit"]["label_smoothing"]


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
    table["changes"] = '{"lr_scale": 2, "augment.erasing": {"probability": 0.5}}'
    assert markdown(table).splitlines()[2:] == [
        "| c | mix | lr_scale 2, augment.erasing (probability 0.5) | 0 | 10.00% |",
        "| b | vit | lr_scale 2, augment.erasing (probability 0.5) | 0, 1 | 55.00% ± 7.07% |",
        "| a | vit | lr_scale 2, augment.erasing (probability 0.5) | 0 | 40.00% |",
    ]


STUDY = {
    "data": {"train_size": 100},
    "start": study("published")["start"],
    "trials": {"b": {"like": "vit"}, "a": {"like": "vit", "augment.crop": 2}},
}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was trained, in a study whose trainings only say how well they went."""
    done: list[str] = []

    def train(folder: Path, *command: str) -> None:
        name = command[-1].removeprefix("train@")
        if name == command[-1]:
            return
        params = YAML_READER.load((folder / "params.yaml").read_text())
        done.append(f"{name} {params['seed']}")
        history = pd.DataFrame({"epoch": [1, 2, 3], "val_acc": [0.1, 0.5, 0.4], "train_loss": 2.0})
        (folder / "reports/models" / name).mkdir(parents=True, exist_ok=True)
        history.to_csv(folder / "reports/models" / name / "history.csv")

    monkeypatch.setattr(recipes, "refresh_pipeline", lambda folder: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(recipes, "run", train)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    return done


def run_study(monkeypatch: pytest.MonkeyPatch, trials: dict[str, Any], *options: str) -> str:
    Path("trials.yaml").write_text(json.dumps(trials))
    monkeypatch.setattr("sys.argv", ["recipes", "trials.yaml", "runs", *options])
    recipes.main()
    return Path("trials.csv").read_text()


def test_only_what_is_missing_is_trained(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(monkeypatch, STUDY, "--only", "a")
    assert trained == ["a 0"]
    run_study(monkeypatch, STUDY, "--seeds", "1", "0")
    assert trained == ["a 0", "b 1", "a 1", "b 0"]
    before = run_study(monkeypatch, STUDY, "--seeds", "0", "1")
    assert len(trained) == 4
    table = pd.read_csv("trials.csv")
    assert list(zip(table.trial, table.seed, strict=True)) == [
        ("b", 0),
        ("b", 1),
        ("a", 0),
        ("a", 1),
    ]
    assert set(zip(table.val_acc, table.best_epoch, strict=True)) == {(0.5, 2)}

    another = copy.deepcopy(STUDY)
    another["trials"]["a"]["augment.crop"] = 3
    after = run_study(monkeypatch, another)
    assert trained[4:] == ["a 0"]
    assert after.count("\n") == before.count("\n")  # in the place of the row it makes untrue


def test_written_parameters_are_those_of_the_trials_at_full_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "published.params.yaml"
    trials = Path("docs/recipes/published.yaml")
    chosen = "vit_adam", "resnet18_ln_reduced"
    argv = ["recipes", str(trials), "--write", str(file), "--only", *chosen]
    monkeypatch.setattr("sys.argv", argv)
    recipes.main()
    params, ours = load_params(file), load_params(Path("params.yaml"))
    assert list(params.models) == list(chosen)
    assert (params.data, params.seed) == (ours.data, ours.seed)
    adam, reduced = params.models.values()
    assert (adam.epochs, reduced.epochs) == (25, 40)
    assert (adam.batch_size, adam.optimizer.weight_decay) == (512, 0.0)
    assert reduced.augment.flip == "none"


def test_an_unknown_trial_is_named(
    trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_study(monkeypatch, STUDY, "--only", "a", "c")
    assert capsys.readouterr().err.endswith("error: trials.yaml has no c\n")
    assert trained == []


def test_a_folder_used_before_gets_the_code_of_today_and_keeps_its_data(tmp_path: Path) -> None:
    for name in ("cifarpipe/training/optim.py", "cifarpipe/old.py", "data/prepared/dataset.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("of yesterday")
    refresh_pipeline(tmp_path)
    assert (tmp_path / "cifarpipe/training/optim.py").read_text() == Path(
        "cifarpipe/training/optim.py"
    ).read_text()
    assert not (tmp_path / "cifarpipe/old.py").exists()
    assert (tmp_path / "data/prepared/dataset.json").read_text() == "of yesterday"


def test_a_run_is_known_by_all_it_depends_on() -> None:
    def known_by(seed: int = 0, **changes: dict[str, Any]) -> str:
        return recipe_hash("a", parameters({**STUDY, **changes}, seed))

    others = {"a": STUDY["trials"]["a"], "c": {"like": "convmixer"}}
    assert known_by() == known_by(trials=others)
    assert len({
        known_by(),
        known_by(seed=1),
        known_by(data={"train_size": 50}),
        known_by(start=STUDY["start"] | {"epochs": 13}),
        known_by(trials={"a": {"like": "vit"}}),
    }) == 5  # fmt: skip
