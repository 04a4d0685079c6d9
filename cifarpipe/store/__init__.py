"""Files that pass from one stage to the next: where they lie and how they are written and read."""
