"""Train an image classifier. See `python train.py --help`."""

from microstep.cli.programs import train

if __name__ == "__main__":
    train()
