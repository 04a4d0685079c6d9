"""All architectures, each by the name of its model in params.demo.yaml."""

from cifarpipe.config.reader import load_params

_MODELS = load_params("params.demo.yaml").models
ARCHITECTURES = tuple({entry.arch: name for name, entry in _MODELS.items()}.values())
