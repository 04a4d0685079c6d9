"""How long each stage of a run took, from its log: `python -m benchmarks.timing RUN.LOG LOGS`.

RUN.LOG has the second before each line that `dvc repro` printed; LOGS holds what `train` says of
each epoch. A stage that was stopped and taken up again counts for both times together.
"""

import re
import sys
from pathlib import Path

import pandas as pd

STARTS = re.compile(r"Running stage '(.+)':$")
SPEAKS = re.compile(r"Updating lock file|Stage '|ERROR|Use `dvc push`|Data and pipelines")


def stage_seconds(lines: list[str]) -> dict[str, int]:
    """Return how long each stage ran, by its name, in the order in which they began."""
    spent: dict[str, int] = {}
    stage, since = "", 0
    for line in lines:
        second, _, text = line.partition(" ")
        if stage and not text.startswith("Stage '"):
            # What went by between two calls, the first of which was stopped, was no work.
            spent[stage] = spent.get(stage, 0) + int(second) - since
        since = int(second)
        if start := STARTS.match(text):
            stage = start[1]
        elif SPEAKS.match(text):
            stage = ""
    return spent


def main() -> None:
    """Print a row for each stage; of trainings, the time and speed of their epochs too."""
    log, folder = Path(sys.argv[1]), Path(sys.argv[2])
    rows = []
    for stage, seconds in stage_seconds(log.read_text(encoding="utf-8").splitlines()).items():
        name, _, model = stage.partition("@")
        row: dict[str, object] = {"stage": stage, "seconds": seconds}
        if name == "train" and (folder / f"{model}.csv").exists():
            epochs = pd.read_csv(folder / f"{model}.csv")
            row |= {
                "epochs": len(epochs),
                "epochs_seconds": round(epochs.seconds.sum(), 1),
                "median_epoch_seconds": round(epochs.seconds.median(), 2),
            }
        rows.append(row)
    table = pd.DataFrame(rows).convert_dtypes()  # whole numbers stay so beside gaps
    print(table.to_csv(index=False), end="")


if __name__ == "__main__":
    main()
