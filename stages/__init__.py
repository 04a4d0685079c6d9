"""One thin script per DVC stage: read inputs, call the library, write outputs."""
