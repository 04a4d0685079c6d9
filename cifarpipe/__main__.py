"""The command `cifarpipe` as `python -m cifarpipe`."""

from cifarpipe.cli import main

main()
