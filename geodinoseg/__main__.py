"""`python -m geodinoseg` is the command `geodinoseg`."""

from geodinoseg.cli import main

main(prog_name="geodinoseg")
