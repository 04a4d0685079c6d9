"""Class activation maps, attention maps, and how far they can be trusted."""
