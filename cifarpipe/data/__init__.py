"""Turn raw images into the prepared arrays that all later stages read."""
