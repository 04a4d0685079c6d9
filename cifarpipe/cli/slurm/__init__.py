"""`cifarpipe slurm`: experiments as an array of jobs on a Slurm cluster.

Each job runs one experiment in a clone of its own, and sends it back to the repository that it was
cloned from, where `dvc exp show` and `cifarpipe sweep` find it.
"""
