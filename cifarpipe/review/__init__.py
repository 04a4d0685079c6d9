"""A review of what changed: this working tree beside another revision."""
