"""What breaks a pipeline, tried many times: `python -m benchmarks.torture`."""
