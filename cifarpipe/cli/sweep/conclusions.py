"""Sentences that summarise a sweep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cifarpipe.cli.sweep.settings import Sweep, is_number

NEAR = 0.02  # of accuracy below the best that still counts as good


def conclusions(sweep: Sweep) -> list[str]:
    """Return sentences: which setting is best on validation, and how sharp the optimum is."""
    table = sweep.table
    if not sweep.varied:
        return [f"{sweep.model}: no parameter differs, so there is nothing to choose."]
    if table.val.isna().all():
        return [
            f"{sweep.model}: there is no validation split (data.val_size is 0), so no setting can "
            f"be chosen without using the test images."
        ]
    best = table[np.isclose(table.val, table.val.max(), rtol=0, atol=1e-9)]
    sentences = [_best_sentence(sweep, best)]
    x, *others = sweep.varied
    if not others or len(best[others].drop_duplicates()) == 1:  # else there is no single optimum
        same = [table[other] == best[other].iloc[0] for other in others]
        line = (table[np.logical_and.reduce(same)] if others else table).dropna(subset="val")
        if len(line) > 1 and all(map(is_number, line[x])):
            start, *more = _sharpness(line.reset_index(drop=True), x, list(best[x]))
            if others:
                fixed = ", ".join(f"{name} = {best[name].iloc[0]}" for name in others)
                start = f"At {fixed}: {start[0].lower()}{start[1:]}"
            sentences += [start, *more]
    if table.val_std.notna().any():
        sentences.append(
            f"The standard deviation of validation accuracy over seeds is up to "
            f"{_points(table.val_std.max())}."
        )
    if table.seeds.min() < table.seeds.max():
        sentences.append(
            f"Settings have {table.seeds.min()} to {table.seeds.max()} seeds; a setting with few "
            f"seeds is more likely to be best by chance."
        )
    if (table.seeds == 1).any():
        widest = (table.val_high - table.val_low)[table.seeds == 1].max()
        noise = _points(widest / 2**0.5)
        sentences.append(
            f"Differences of up to {noise} between single-seed runs may be due to the sampling of "
            f"validation images; the randomness of training adds to that."
        )
    return sentences


def _best_sentence(sweep: Sweep, best: pd.DataFrame) -> str:
    settings = [
        ", ".join(f"{name} = {row[name]}" for name in sweep.varied)
        for row in best[sweep.varied].astype(object).to_dict("records")
    ]
    val = f"validation accuracy, {best.val.iloc[0]:.2%}"
    if len(settings) > 1:
        return f"{sweep.model}: tied for the highest {val}: {'; '.join(settings)}."
    return (
        f"{sweep.model}: {settings[0]} has the highest {val} (test accuracy "
        f"{best.test.iloc[0]:.2%}, which was not used to choose)."
    )


def _sharpness(line: pd.DataFrame, x: str, best: Sequence[Any]) -> list[str]:
    """Return how far one may deviate from the best value, all other parameters being equal.

    Args:
        line: Rows of the table that differ in `x` alone, sorted.
        x: Name of a parameter with numeric values.
        best: Its best value, or several that are tied.
    """
    top = line.val[line[x] == best[0]].iloc[0]
    first, last = (int(line.index[line[x] == value][0]) for value in (min(best), max(best)))
    while first > 0 and line.val[first - 1] >= top - NEAR:
        first -= 1
    while last + 1 < len(line) and line.val[last + 1] >= top - NEAR:
        last += 1
    apart = line[x][(line.val >= top - NEAR) & ~line.index.isin(range(first, last + 1))]
    if first == last:
        no = "other" if apart.empty else "adjacent"
        sentences = [f"No {no} {x} is within {_points(NEAR)} of the best."]
    else:
        low, high = line[x][first], line[x][last]
        factor = f", a factor of {high / low:.3g}" if low > 0 else ""
        if (line.val[first : last + 1] >= top - NEAR).all():
            stays = f"accuracy stays within {_points(NEAR)}"
        else:  # two best values that are tied
            stays = f"some values in between are worse by more than {_points(NEAR)}"
        sentences = [f"From {x} = {low} to {high}{factor}, {stays}."]
    if len(apart):
        sentences.append(f"Also within {_points(NEAR)}: {', '.join(map(str, apart))}.")
    drops = [
        f"by {_points(top - line.val[i])} at {line[x][i]}"
        for i in (first - 1, last + 1)
        if 0 <= i < len(line)
    ]
    if drops:
        sentences.append(f"Accuracy is lower {', '.join(drops)}.")
    for end, value in (("lowest", line[x].iloc[0]), ("highest", line[x].iloc[-1])):
        if list(best) == [value]:
            sentences.append(f"The best {x} is the {end} one tried: try further values.")
    return sentences


def _points(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} points".replace(".0 ", " ")
