"""Train an image classifier, and leave a run directory with everything about it.

`python train.py --help` says what to type.
"""

from microstep.cli.programs import train

if __name__ == "__main__":
    train()
