"""replay=: repeats one optimizer step of a run, and names what made it not finite."""
