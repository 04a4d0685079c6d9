"""List how long each stage of a run took, from its log: `python -m benchmarks.timing RUN.LOG LOGS`.

RUN.LOG has the output of `dvc repro` or `cifarpipe repro`, each line after the second in which it
was printed. LOGS is the study's logs/, with the seconds of each epoch. The times of a stage that
was stopped and resumed are added.
"""

import re
import sys
from pathlib import Path

import pandas as pd

BESIDE = re.compile(r"([a-z][a-z0-9_-]*) \| (.*)$", re.DOTALL)
STARTS = re.compile(r"Running stage '(.+)':$")
STOPPED = "ERROR: stopped"  # a line of whoever writes the log: all stages end
ENDS = re.compile(r"Updating lock file|Stage '|ERROR|Use `dvc push`|Data and pipelines")


def stage_seconds(lines: list[str]) -> dict[str, int]:
    """Return how long each stage ran, by its name, in the order in which the stages began."""
    seconds: dict[str, int] = {}
    running: dict[str, str] = {}  # the stage of each model that runs beside others, and of no model
    last: dict[str, int] = {}
    for line in lines:
        word, _, text = line.partition(" ")
        now = int(word)
        beside = BESIDE.match(text)
        source, text = beside.groups() if beside else ("", text)
        ending = list(running) if text.startswith(STOPPED) else [source]
        for each in ending:
            if each in running and not text.startswith("Stage '"):
                # A line "Stage '…' didn't change" is of the next call of `dvc repro`: this one was
                # stopped, and no stage ran in between.
                stage = running[each]
                seconds[stage] = seconds.get(stage, 0) + now - last[each]
            last[each] = now
            if ENDS.match(text):
                running.pop(each, None)
        if start := STARTS.match(text):
            running[source] = start[1]
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
