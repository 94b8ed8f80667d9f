"""Runs a program: `python -m microstep train|evaluate|stats …`."""

import sys

from microstep.cli.main import exit_with_error
from microstep.cli.programs import compute_stats, evaluate, train

PROGRAMS = {"train": train, "evaluate": evaluate, "stats": compute_stats}

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "nothing"
    if name not in PROGRAMS:
        exit_with_error(f"{name}: no such program; the programs are {', '.join(PROGRAMS)}", 2)
    PROGRAMS[name](sys.argv[2:])
