"""Tables and maps that later stages read, and the intervals that stand in them."""
