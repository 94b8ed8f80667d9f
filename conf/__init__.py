"""The yamls of microstep, which Hydra finds as `pkg://microstep.conf`."""
