"""`python -m vaekit.export RUN` is `vaekit export RUN`."""

import sys

from vaekit.cli import main

main(["export", *sys.argv[1:]])
