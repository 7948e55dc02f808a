"""`python -m ba_dist` is `ba-dist`."""

from ba_dist.cli import main

main()
