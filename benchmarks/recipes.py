"""Train one model by many recipes, and table what validation says of each.

`python -m benchmarks.recipes docs/recipes/TRIALS.yaml FOLDER [--seeds 0 1 2] [--only TRIAL …]`. The
table, docs/recipes/TRIALS.csv, gets a row for each run; what has one is not run again, unless its
recipe or its data has changed. FOLDER holds the runs. The test images are not looked at.

`python -m benchmarks.recipes docs/recipes/TRIALS.yaml --write FILE` writes parameters that have the
trials for models, on the images and for the epochs of params.yaml: in its place, `dvc repro` makes
of them the whole study.

A file of trials has `data`, which changes that section of params.yaml; `start`, a whole recipe; and
`trials`, by name: the entry of params.yaml whose architecture each is `like`, and what it changes
of `start`: `augment.randaugment.n: 2`.
"""

import argparse
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.study import ROOT, refresh_pipeline, run
from cifarpipe.config.schema import Recipe
from cifarpipe.store.outputs import write_csv

YAML_READER = YAML(typ="safe")


def main() -> None:
    """Train what is missing, one after the other, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path)
    todo = parser.add_mutually_exclusive_group(required=True)
    todo.add_argument("folder", type=Path, nargs="?", help="where to train them")
    todo.add_argument("--write", type=Path, metavar="FILE", help="parameters to train them by")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="TRIAL", help="these, in this order")
    asked = parser.parse_args()
    study = YAML_READER.load(asked.trials.read_text(encoding="utf-8"))
    names = asked.only or list(study["trials"])
    if unknown := set(names) - set(study["trials"]):
        parser.error(f"{asked.trials} has no {', '.join(sorted(unknown))}")
    if asked.write:
        YAML().dump(full_budget(study, names), asked.write)
        return
    file = asked.trials.with_suffix(".csv")
    none_yet = pd.DataFrame(columns=["trial", "seed", "recipe"])
    table = pd.read_csv(file) if file.exists() else none_yet
    for seed in asked.seeds:
        params = parameters(study, seed)
        missing = [name for name in names if not is_in(table, name, params)]
        folder = asked.folder / f"seed_{seed}"
        if missing:  # in a folder used before, the code may be an older one
            refresh_pipeline(folder)
        for name in missing:
            YAML().dump(params, folder / "params.yaml")
            run(folder, "dvc", "repro", "prepare")
            run(folder, "dvc", "repro", "--single-item", f"train@{name}")
            row = result(study["trials"][name], name, params, folder)
            others = table[(table.trial != name) | (table.seed != seed)]
            table = in_order(pd.DataFrame([*others.to_dict("records"), row]), study)
            write_csv(file, table)
            print(f"seed {seed}: {name}: {row['val_acc']:.4f}", flush=True)
    print(markdown(table))


def parameters(study: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return params.yaml with the trials in place of its models, on the images of the study."""
    params = with_models(study, list(study["trials"]))
    return params | {"seed": seed, "data": params["data"] | study["data"]}


def full_budget(study: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return params.yaml with some trials in place of its models, each for as long as its like."""
    params = with_models(study, names)
    epochs = {name: entry["epochs"] for name, entry in default_params()["models"].items()}
    for name, entry in params["models"].items():
        entry["epochs"] = epochs[study["trials"][name]["like"]]
    return params


def with_models(study: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return params.yaml with some trials in place of its models."""
    params = default_params()
    models = {}
    for name in names:
        trial = study["trials"][name]
        network = architecture(params["models"][trial["like"]])
        models[name] = network | changed(study["start"], changes_of(trial))
    more = {"models": models, "report": params["report"] | {"baselines": {}}}
    # Sections that trials share are written out for each: params.yaml has no YAML aliases.
    whole: dict[str, Any] = json.loads(json.dumps(params | more))
    return whole


def default_params() -> dict[str, Any]:
    """Return params.yaml as plain values."""
    params: dict[str, Any] = YAML_READER.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return params


def architecture(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what of an entry makes the network."""
    return {key: value for key, value in entry.items() if key not in Recipe.model_fields}


def recipe_hash(name: str, params: dict[str, Any]) -> str:
    """Return what a run depends on, in eight digits."""
    parts = [params[key] for key in ("seed", "lr", "data", "train")] + [params["models"][name]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def is_in(table: pd.DataFrame, name: str, params: dict[str, Any]) -> bool:
    """Return whether a table has a trial's run with these parameters."""
    return bool(((table.trial == name) & (table.recipe == recipe_hash(name, params))).any())


def in_order(table: pd.DataFrame, study: dict[str, Any]) -> pd.DataFrame:
    """Return a table with trials as in their file, each with its seeds in order."""
    place = {name: index for index, name in enumerate(study["trials"])}
    by_trial = {"by": "trial", "key": lambda names: names.map(place), "kind": "stable"}
    return table.sort_values("seed").sort_values(**by_trial)


def changed(entry: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with some changes, by path."""
    entry = copy.deepcopy(entry)
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = entry
        for parent in parents:
            section = section[parent]
        if key not in section:
            raise KeyError(f"no recipe has {path}")
        section[key] = value
    return entry


def changes_of(trial: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial changes."""
    return {path: value for path, value in trial.items() if path != "like"}


def result(
    trial: dict[str, Any], name: str, params: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the row of a run that came to its end."""
    history = pd.read_csv(folder / f"reports/models/{name}/history.csv")
    best = history.loc[history.val_acc.idxmax()]
    return {
        "trial": name,
        "seed": params["seed"],
        "recipe": recipe_hash(name, params),
        "like": trial["like"],
        "changes": json.dumps(changes_of(trial)),
        "epochs": len(history),
        "val_acc": round(best.val_acc, 4),
        "best_epoch": int(best.epoch),
        "last_val_acc": round(history.val_acc.iloc[-1], 4),
        "train_loss": round(history.train_loss.iloc[-1], 4),
    }


def markdown(table: pd.DataFrame) -> str:
    """Return a row for each trial, the best of each model first."""
    lines = ["| trial | like | changes | seeds | validation, best epoch |",
             "| --- | --- | --- | --- | ---: |"]  # fmt: skip
    means = table.groupby("trial").val_acc.mean()
    order = sorted(dict.fromkeys(zip(table.like, table.trial, strict=True)),
                   key=lambda pair: (pair[0], -means[pair[1]]))  # fmt: skip
    for like, name in order:
        rows = table[table.trial == name]
        spread = f" ± {rows.val_acc.std():.2%}" if len(rows) > 1 else ""
        what = in_words(json.loads(rows.changes.iloc[0])) or "–"
        seeds = ", ".join(str(seed) for seed in rows.seed)
        lines.append(f"| {name} | {like} | {what} | {seeds} | {means[name]:.2%}{spread} |")
    return "\n".join(lines)


def in_words(changes: dict[str, Any]) -> str:
    """Return changes in words."""
    return ", ".join(
        f"{path} ({in_words(value)})" if isinstance(value, dict) else f"{path} {value}"
        for path, value in changes.items()
    )


if __name__ == "__main__":
    main()
