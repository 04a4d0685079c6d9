"""From raw images to the prepared arrays that every later stage reads."""
