"""List how long each stage of a run took, from its log: `python -m benchmarks.timing RUN.LOG LOGS`.

RUN.LOG has the output of `dvc repro`, each line after the second in which it was printed. LOGS is
the study's logs/, with the seconds of each epoch. The times of a stage that was stopped and resumed
are added.
"""

import re
import sys
from pathlib import Path

import pandas as pd

STARTS = re.compile(r"Running stage '(.+)':$")
ENDS = re.compile(r"Updating lock file|Stage '|ERROR|Use `dvc push`|Data and pipelines")


def stage_seconds(lines: list[str]) -> dict[str, int]:
    """Return how long each stage ran, by its name, in the order in which the stages began."""
    seconds: dict[str, int] = {}
    stage, last = "", 0
    for line in lines:
        now, _, text = line.partition(" ")
        if stage and not text.startswith("Stage '"):
            # A line "Stage '…' didn't change" is of the next call of `dvc repro`: this one was
            # stopped, and no stage ran in between.
            seconds[stage] = seconds.get(stage, 0) + int(now) - last
        last = int(now)
        if start := STARTS.match(text):
            stage = start[1]
        elif ENDS.match(text):
            stage = ""
    return seconds


def stage_table(log: Path, folder: Path) -> pd.DataFrame:
    """Return a row for each stage; for a training, also the time of its epochs.

    Args:
        log: Of the run.
        folder: The study's logs/.
    """
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
    return pd.DataFrame(rows).convert_dtypes()  # keeps integers where other rows are empty


def main() -> None:
    """Print the table as CSV."""
    table = stage_table(Path(sys.argv[1]), Path(sys.argv[2]))
    print(table.to_csv(index=False), end="")


if __name__ == "__main__":
    main()
