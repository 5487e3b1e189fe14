"""Entry point of `python -m pi_sim`."""

from pi_sim.cli import main

main(prog_name="pi-sim")
