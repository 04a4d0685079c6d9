"""Metrics on the test split, calibration, slices, and the choice of images that are shown."""
