"""Train one model by many recipes, and table what validation says of each.

`python -m benchmarks.recipes docs/recipes/TRIALS.yaml FOLDER [--seeds 0 1 2] [--only PART]`. What
has been trained in FOLDER stays, so the same line goes on after a stop, or adds what is new. The
test images are not looked at.

A file of trials has `data`, which changes that section of params.yaml; `trials`, by name: the entry
of params.yaml that each is `like`, and what it changes there, `augment.randaugment.n: 2`; `all`:
what they all change.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.study import ROOT, copy_pipeline, run
from cifarpipe.outputs import write_csv

yaml = YAML(typ="safe")


def main() -> None:
    """Train what is missing, one after the other, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="trials whose name has this in it")
    asked = parser.parse_args()
    study = yaml.load(asked.trials.read_text(encoding="utf-8"))
    names = [name for name in study["trials"] if asked.only in name]
    for seed in asked.seeds:
        folder = asked.folder / f"seed_{seed}"
        if not folder.exists():
            copy_pipeline(folder)
        with (folder / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(parameters(study, seed), file)
        run(folder, "dvc", "repro", "prepare")
        for name in names:
            run(folder, "dvc", "repro", "--single-item", f"train@{name}")
            table = pd.DataFrame(results(study, asked.folder))
            write_csv(asked.trials.with_suffix(".csv"), table)
            print(f"seed {seed}: {name}: {table[table.trial == name].val_acc.iloc[-1]:.4f}")
    print(markdown(table))


def parameters(study: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return params.yaml with an entry for each trial."""
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    models = {
        name: changed(params["models"][trial["like"]], study["all"] | changes(trial))
        for name, trial in study["trials"].items()
    }
    return params | {
        "seed": seed,
        "data": params["data"] | study["data"],
        "models": models,
        "report": params["report"] | {"baselines": {}},
    }


def changed(entry: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with some changes, by path."""
    entry = copy.deepcopy(entry)
    for path, value in changes.items():
        *parents, key = path.split(".")
        section = entry
        for parent in parents:
            section = section[parent]
        if key not in section:
            raise KeyError(f"no entry has {path}")
        section[key] = value
    return entry


def changes(trial: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial changes."""
    return {path: value for path, value in trial.items() if path != "like"}


def results(study: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each run that came to its end."""
    for name, trial in study["trials"].items():
        for place in sorted(folder.glob("seed_*")):
            if not (place / f"artifacts/{name}/model.safetensors").exists():
                continue
            history = pd.read_csv(place / f"reports/models/{name}/history.csv")
            best = history.loc[history.val_acc.idxmax()]
            yield {
                "trial": name,
                "like": trial["like"],
                "changes": json.dumps(changes(trial)),
                "seed": int(place.name.removeprefix("seed_")),
                "epochs": len(history),
                "val_acc": best.val_acc,
                "best_epoch": int(best.epoch),
                "last_val_acc": history.val_acc.iloc[-1],
                "train_loss": history.train_loss.iloc[-1],
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
        what = ", ".join(f"{k} {v}" for k, v in json.loads(rows.changes.iloc[0]).items()) or "–"
        seeds = ", ".join(str(seed) for seed in rows.seed)
        lines.append(f"| {name} | {like} | {what} | {seeds} | {means[name]:.2%}{spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
