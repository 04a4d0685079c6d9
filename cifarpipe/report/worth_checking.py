"""Possible label errors, near-duplicates and weak groups, as the page shows them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarpipe.report.study import Study

WORTH_CHECKING = 21  # labels of each split, and near-duplicates
LABEL_FLAG = "possible label error"
WEAK_GROUPS = 5  # of a model
TOO_MANY = 0.2  # of all labels: so many are not wrong, but the predictions are poor
DUPLICATE_FLAG = "near-duplicate in train"


def worth_checking(study: Study) -> list[dict[str, Any]]:
    """Return galleries of possible label errors and of near-duplicates: titles, counts, tiles."""
    candidates, duplicates = study.label_candidates, study.near_duplicates
    galleries = []
    for split, kind, images in (
        ("test", "Test", study.test),
        ("train", "Training", study.train),
    ):
        table = candidates[candidates.split == split]
        unreliable = len(table) > TOO_MANY * len(images)
        galleries.append(
            {
                "title": f"{kind} labels",
                "count": len(table),
                "note": f"This list is not reliable: more than {TOO_MANY:.0%} of the labels are in "
                f"it, so the predictions are probably poor." * unreliable,
                "flag": LABEL_FLAG if split == "test" else None,
                "tiles": [
                    {
                        split: row.position,
                        "name": _name(split, row.index, row.file),
                        "text": f"label: {row.label}",
                        "note": f"suggested: {row.suggested} ({row.suggested_probability:.2f})",
                    }
                    for row in table[:WORTH_CHECKING].itertuples()
                ],
            }
        )
    galleries.append(
        {
            "title": "Near-duplicates of test images in the training set",
            "count": len(duplicates),
            "note": "",
            "flag": DUPLICATE_FLAG,
            "tiles": [
                {
                    "test": row.position,
                    "train": row.train_position,
                    "name": f"{_name('test', row.index, row.file)}, "
                    f"{_name('train', row.train_index, row.train_file)}",
                    "text": f"correlation {row.correlation:.2f}",
                    "note": "same label" if row.same_label else "different labels",
                }
                for row in duplicates[:WORTH_CHECKING].itertuples()
            ],
        }
    )
    return galleries


def _name(split: str, index: Any, file: Any) -> str:
    """Return the name of an image: its file's, else its index."""
    return f"{split} {file or f'#{index}'}"


def own_flags(study: Study) -> dict[str, NDArray[np.bool_]]:
    """Return what was found about each test image, `[N]` for each flag of the page."""
    candidates = study.label_candidates
    found = {
        LABEL_FLAG: candidates[candidates.split == "test"].position,
        DUPLICATE_FLAG: study.near_duplicates.position,
    }
    numbers = np.arange(len(study.test))
    flags = {name: np.isin(numbers, positions) for name, positions in found.items()}
    members = {g.name: g.members for groups in study.groups.values() for g in groups}
    weak = study.weak_groups.groupby("model").head(WEAK_GROUPS).group
    return flags | {name: members[name] for name in members if name in set(weak)}
