"""Train models by many recipes, and list their validation accuracies in a table.

`python -m benchmarks.recipes TRIALS.yaml FOLDER [--seeds 0 1 2] [--only TRIAL …]` trains in FOLDER
and adds a row per run to TRIALS.csv, beside TRIALS.yaml. A trial that has a row is not trained
again unless its recipe or its data changed. The test images are not used.

`python -m benchmarks.recipes TRIALS.yaml --write FILE [--only TRIAL …]` writes parameters that have
the trials as models, with the data and the numbers of epochs of params.yaml. With that file in
place of params.yaml, `dvc repro` runs them as a complete study.

`python -m benchmarks.recipes --check TRIALS.yaml …` validates every trial of these files, and
checks that each row of the CSV files belongs to a trial as it is now. Exit code 1 if not.

A file of trials has three sections:

- `data`: changes of that section of params.yaml;
- `start`: a complete recipe;
- `trials`: for each, `like`, the model of params.yaml whose architecture it has, and its changes of
  `start`, by path. `augment.cutout: 8` sets or adds a key, `augment.cutout: null` removes it. In a
  recipe, a key that is absent is off.
"""

import argparse
import copy
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.study import ROOT, refresh_pipeline, run
from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import load_params
from cifarpipe.config.recipes import Recipe
from cifarpipe.explanations.randomisation import INITIALISATION
from cifarpipe.store.outputs import write_csv

YAML_READER = YAML(typ="safe")


def main() -> None:
    """Train trials, write parameters of them, or check files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path, nargs="?", help="file of trials")
    parser.add_argument("folder", type=Path, nargs="?", help="where to train them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="TRIAL", help="these trials, in this order")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write parameters instead")
    parser.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="check files instead")
    options = parser.parse_args()
    if options.check:
        fail_on(problems_of(options.check))
        return
    if not options.trials or bool(options.folder) == bool(options.write):
        parser.error("give TRIALS FOLDER, TRIALS --write FILE or --check FILE …")
    study = read_study(options.trials)
    names = options.only or list(study["trials"])
    if unknown := set(names) - set(study["trials"]):
        parser.error(f"{options.trials} has no trial {', '.join(sorted(unknown))}")
    fail_on([f"{options.trials}: {problem}" for problem in invalid(study)])
    if options.write:
        YAML().dump(full_budget(study, names), options.write)
    else:
        train(study, names, options.seeds, options.folder, options.trials.with_suffix(".csv"))


def train(
    study: dict[str, Any], names: list[str], seeds: list[int], folder: Path, file: Path
) -> None:
    """Train the trials that have no row, one after the other; write the table after each.

    Args:
        study: A file of trials.
        names: The trials to train.
        seeds: Each trial is trained with each of them.
        folder: Gets a copy of the pipeline for each seed.
        file: The table.
    """
    table = read_results(file)
    for seed in seeds:
        params = parameters(study, seed)
        missing = [name for name in names if not has_row(table, name, params)]
        home = folder / f"seed_{seed}"
        if missing:  # the code in a folder that was used before may be outdated
            refresh_pipeline(home)
        for name in missing:
            YAML().dump(params, home / "params.yaml")
            run(home, "dvc", "repro", "prepare")
            run(home, "dvc", "repro", "--single-item", f"train@{name}")
            row = result(study["trials"][name], name, params, home)
            others = table[(table.trial != name) | (table.seed != seed)]
            table = in_order(pd.DataFrame([*others.to_dict("records"), row]), study)
            write_csv(file, table)
            print(f"seed {seed}: {name}: {row['val_acc']:.4f}", flush=True)
    print(markdown(table))


def fail_on(problems: list[str]) -> None:
    """Print problems and exit with code 1, if there are any."""
    if problems:
        sys.exit("\n".join(problems))


def problems_of(files: list[Path]) -> list[str]:
    """Return what is wrong with files of trials and the tables beside them, a line each."""
    studies = {file: read_study(file) for file in files}
    found = [f"{file}: {problem}" for file, study in studies.items() for problem in invalid(study)]
    if not found:
        found = [line for file, study in studies.items() for line in unmatched_rows(file, study)]
        found += different_epochs(studies)
    return found


def invalid(study: dict[str, Any]) -> list[str]:
    """Return why trials are not valid, a line each."""
    models = default_params()["models"]
    trials = study["trials"]
    given = {path for trial in trials.values() for path in trial if trial[path] is not None}
    found = []
    for name, trial in trials.items():
        if trial.get("like") not in models:
            found.append(
                f"{name}.like is {trial.get('like')}; the models of params.yaml are: "
                f"{', '.join(models)}"
            )
        found += [
            f"{name} removes {path}, which neither `start` nor any trial has"
            for path, value in trial.items()
            if value is None and path not in given and not has_path(study["start"], path)
        ]
    if found:
        return found
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        YAML().dump(parameters(study, seed=0), file)
        try:
            load_params(file)
        except UserError as error:
            lines = str(error).splitlines()
            return [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    return []


def unmatched_rows(file: Path, study: dict[str, Any]) -> list[str]:
    """Return which rows of the table beside a file belong to no trial as it is now, a line each."""
    table = file.with_suffix(".csv")
    found = []
    rows = read_results(table)
    for trial, seed, recipe in zip(rows.trial, rows.seed, rows.recipe, strict=True):
        where = f"{table}: {trial}, seed {seed}"
        if trial not in study["trials"]:
            found.append(f"{where}: {file.name} has no such trial")
        elif recipe != (now := recipe_hash(trial, parameters(study, seed))):
            found.append(
                f"{where}: recipe {recipe} is now {now}, since the trial or params.yaml changed"
            )
    return found


def different_epochs(studies: dict[Path, dict[str, Any]]) -> list[str]:
    """Return which trials can't be compared, a line each.

    Trials of one architecture on the same images must have equal numbers of epochs.
    """
    first: dict[tuple[str, str], int] = {}
    found = []
    for file, study in studies.items():
        images = json.dumps(study["data"], sort_keys=True)
        for name, entry in parameters(study, seed=0)["models"].items():
            expected = first.setdefault((entry["arch"], images), entry["epochs"])
            if entry["epochs"] != expected:
                found.append(
                    f"{file}: {name} has {entry['epochs']} epochs; other trials of "
                    f"{entry['arch']} on these images have {expected}"
                )
    return found


def read_study(file: Path) -> dict[str, Any]:
    """Read a file of trials."""
    study: dict[str, Any] = YAML_READER.load(file.read_text(encoding="utf-8"))
    return study


def read_results(file: Path) -> pd.DataFrame:
    """Read a table of results; an empty one if there is none yet."""
    if file.exists():
        return pd.read_csv(file, dtype={"recipe": str})
    return pd.DataFrame(columns=["trial", "seed", "recipe"])


def parameters(study: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return params.yaml with the trials as its models, and with the data of the study."""
    params = with_models(study, list(study["trials"]))
    return params | {
        "seed": seed,
        "data": params["data"] | study["data"],
        "train": params["train"] | {"keep": "best"},
        "report": {"title": params["report"]["title"]},
    }


def full_budget(study: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return params.yaml with some trials as its models, for its own numbers of epochs."""
    params = with_models(study, names)
    epochs = {name: entry["epochs"] for name, entry in default_params()["models"].items()}
    for name, entry in params["models"].items():
        entry["epochs"] = epochs[study["trials"][name]["like"]]
    return params


def with_models(study: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return params.yaml with some trials as its models."""
    params = default_params()
    models = {}
    for name in names:
        trial = study["trials"][name]
        network = architecture(params["models"][trial["like"]])
        models[name] = network | changed(study["start"], changes_of(trial))
    report = {key: value for key, value in params["report"].items() if key != "baselines"}
    # By way of JSON, so that sections that trials share are written for each: params.yaml must not
    # have YAML aliases.
    complete: dict[str, Any] = json.loads(json.dumps(params | {"models": models, "report": report}))
    return complete


def default_params() -> dict[str, Any]:
    """Return params.yaml as plain values."""
    params: dict[str, Any] = YAML_READER.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return params


def architecture(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of an entry that define its network, without its initial weights."""
    others = (*Recipe.model_fields, *INITIALISATION)
    return {key: value for key, value in entry.items() if key not in others}


def recipe_hash(name: str, params: dict[str, Any]) -> str:
    """Return a hash of all parameters that a run depends on, in eight digits."""
    # A new key of `data` whose default is null leaves all hashes as they are.
    data = {key: value for key, value in params["data"].items() if value is not None}
    parts = [params["seed"], params["lr"], data, params["train"], params["models"][name]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def has_row(table: pd.DataFrame, name: str, params: dict[str, Any]) -> bool:
    """Return whether a table has the run of a trial with these parameters."""
    return bool(((table.trial == name) & (table.recipe == recipe_hash(name, params))).any())


def in_order(table: pd.DataFrame, study: dict[str, Any]) -> pd.DataFrame:
    """Return a table with its trials in the order of their file, and each trial's seeds sorted."""
    place = {name: index for index, name in enumerate(study["trials"])}
    by_seed = table.sort_values("seed")
    return by_seed.sort_values("trial", key=lambda names: names.map(place), kind="stable")


def changed(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with some changes, by path; None removes a key."""
    recipe = copy.deepcopy(recipe)
    for path, value in changes.items():
        if value is None and not has_path(recipe, path):
            continue
        *parents, key = path.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            del section[key]
        else:
            section[key] = value
    return recipe


def has_path(recipe: dict[str, Any], path: str) -> bool:
    """Return whether a recipe has a key, given by its path."""
    section: Any = recipe
    for key in path.split("."):
        if not isinstance(section, dict) or key not in section:
            return False
        section = section[key]
    return True


def changes_of(trial: dict[str, Any]) -> dict[str, Any]:
    """Return the changes of `start` that make a trial."""
    return {path: value for path, value in trial.items() if path != "like"}


def result(
    trial: dict[str, Any], name: str, params: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the row of a finished run."""
    history = pd.read_csv(folder / f"reports/models/{name}/history.csv")
    kept = history[history.kept == 1].iloc[0]  # the best epoch on validation
    return {
        "trial": name,
        "seed": params["seed"],
        "recipe": recipe_hash(name, params),
        "like": trial["like"],
        "changes": json.dumps(changes_of(trial)),
        "epochs": len(history),
        "val_acc": round(kept.val_acc, 4),
        "best_epoch": int(kept.epoch),
        "last_val_acc": round(history.val_acc.iloc[-1], 4),
        "train_loss": round(history.train_loss.iloc[-1], 4),
    }


def markdown(table: pd.DataFrame) -> str:
    """Return a row for each trial, sorted by model and by validation accuracy, the best first."""
    lines = ["| trial | like | changes | seeds | validation, best epoch |",
             "| --- | --- | --- | --- | ---: |"]  # fmt: skip
    means = table.groupby("trial").val_acc.mean()
    order = sorted(dict.fromkeys(zip(table.like, table.trial, strict=True)),
                   key=lambda pair: (pair[0], -means[pair[1]]))  # fmt: skip
    for like, name in order:
        rows = table[table.trial == name]
        spread = f" ± {rows.val_acc.std():.2%}" if len(rows) > 1 else ""
        changes = describe(json.loads(rows.changes.iloc[0])) or "–"
        seeds = ", ".join(str(seed) for seed in rows.seed)
        lines.append(f"| {name} | {like} | {changes} | {seeds} | {means[name]:.2%}{spread} |")
    return "\n".join(lines)


def describe(changes: dict[str, Any]) -> str:
    """Return changes as text."""
    return ", ".join(describe_change(path, value) for path, value in changes.items())


def describe_change(path: str, value: Any) -> str:
    """Return a change as text."""
    if value is None:
        return f"no {path}"
    return f"{path} ({describe(value)})" if isinstance(value, dict) else f"{path} {value}"


if __name__ == "__main__":
    main()
