"""One thin script per DVC stage: read inputs, one library call, write outputs."""
