"""One revision of the project compared with another."""
