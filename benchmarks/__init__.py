"""Measurements of the pipeline: speed, explanations, recipes, reliability. No test imports them."""
