"""How long stages took, from a log by hand."""

from benchmarks.timing import stage_seconds

LOG = """\
100 Running stage 'prepare':
100 > python -m stages.prepare
107 Updating lock file 'dvc.lock'
109 Running stage 'train@vit':
109 > python -m stages.train vit
150 vit: Epoch: 1
170 vit: Epoch: 2
400 Stage 'prepare' didn't change, skipping
402 Running stage 'train@vit':
450 vit: Epoch: 3
460 ERROR: failed to reproduce 'train@vit'
470 Stage 'prepare' didn't change, skipping
471 Running stage 'train@vit':
475 Updating lock file 'dvc.lock'
480 Running stage 'report':
483 the report: reports/index.html
""".splitlines()


def test_a_stage_lasts_until_dvc_speaks_again() -> None:
    assert stage_seconds(LOG[:4]) == {"prepare": 7}


def test_times_before_and_after_a_stop_are_added_and_the_last_line_ends_the_last_stage() -> None:
    # Stopped after 170 without a word: what was between the two calls counts for no stage.
    assert stage_seconds(LOG) == {"prepare": 7, "train@vit": 61 + 58 + 4, "report": 3}
