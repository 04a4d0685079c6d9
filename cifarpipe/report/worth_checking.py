"""What the page asks people to look at: labels, near-duplicates, weak groups."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifarpipe.report.study import Study

WORTH_CHECKING = 21  # labels of each split, and near-duplicates
LABEL_FLAG = "label worth checking"
WEAK_GROUPS = 5  # of a model
DUPLICATE_FLAG = "near-duplicate in train"


def worth_checking(study: Study) -> list[dict[str, Any]]:
    """Return galleries of labels worth checking and of near-duplicates: titles, counts, tiles."""
    candidates, duplicates = study.label_candidates, study.near_duplicates
    galleries = []
    for split, kind in (("test", "Test"), ("train", "Training")):
        table = candidates[candidates.split == split]
        galleries.append(
            {
                "title": f"{kind} labels",
                "count": len(table),
                "flag": LABEL_FLAG if split == "test" else None,
                "tiles": [
                    {
                        split: row.position,
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
            "flag": DUPLICATE_FLAG,
            "tiles": [
                {
                    "test": row.position,
                    "train": row.train_position,
                    "text": f"correlation {row.correlation:.2f}",
                    "note": "same label" if row.same_label else "different labels",
                }
                for row in duplicates[:WORTH_CHECKING].itertuples()
            ],
        }
    )
    return galleries


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
