"""The summary report: what all models got right and wrong; sees tables, never a model."""
