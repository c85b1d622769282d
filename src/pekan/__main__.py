"""`python -m pekan`."""

from pekan.cli import main

main()
