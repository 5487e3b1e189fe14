"""The door of a checkout: `python cli.py estimate --model relu_nonorm`, with pi-sim's dependencies installed."""

from pi_sim.cli import main

if __name__ == "__main__":
    main(prog_name="pi-sim")
