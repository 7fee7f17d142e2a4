"""`python -m solversearch.cli`, where the script is not on the path."""

from solversearch.cli import main

main()
