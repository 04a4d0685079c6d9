"""Fault injection and fuzzing of the pipeline: `python -m benchmarks.torture`."""
