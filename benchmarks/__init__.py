"""Measurements beside the pipeline; never part of the test run."""
