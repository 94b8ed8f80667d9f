"""`python -m microstep train …`, and so for `evaluate` and `stats`."""

import sys

from microstep.cli.main import exit_with_error
from microstep.cli.programs import compute_stats, evaluate, train

PROGRAMS = {"train": train, "evaluate": evaluate, "stats": compute_stats}

if __name__ == "__main__":
    named = sys.argv[1] if len(sys.argv) > 1 else "nothing"
    if named not in PROGRAMS:
        exit_with_error(f"{named}: no such program; the programs are {', '.join(PROGRAMS)}", 2)
    PROGRAMS[named](sys.argv[2:])
