"""The architectures, one per file, named as `arch` in params.yaml."""
