"""Runs one contestant: `python -m benchmarks.contestants NAME WORKLOAD_FILE SEED RESULT_FILE`."""

import sys
from importlib import import_module
from pathlib import Path

import torch
from benchmarks.contestants import CONTESTANTS
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import Workload

name, workload_file, seed, result_file = sys.argv[1:]
clock = Clock()
module = import_module(f"benchmarks.contestants.{CONTESTANTS[name].module}")
module.train(Workload(**torch.load(workload_file), seed=int(seed)), clock, **CONTESTANTS[name].options)
clock.write(Path(result_file))
