"""The command `cifarpipe` as `python -m cifarpipe`."""

from cifarpipe.cli.main import main

main()
