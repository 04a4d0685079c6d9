"""Schema and reader of params.yaml, user errors, command runner: a dependency of no stage."""
