"""A model of each architecture."""

from cifarpipe.config.reader import load_params

# Names of models in params.demo.yaml, by their architecture.
MODEL_OF_ARCHITECTURE = {
    entry.arch: name for name, entry in load_params("params.demo.yaml").models.items()
}
