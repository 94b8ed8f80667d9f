"""One experiment in several processes: is it equal, and how fast is it?

    python benchmarks/processes.py equality              # largest distance of any tensor, in fp64; minutes
    python benchmarks/processes.py before DIR            # strategy=single against the checkout of an earlier version
    python benchmarks/processes.py speed [--rounds 3]    # two processes against one, and other libraries
    python benchmarks/processes.py window                # where the time of a step in two processes goes

Prints tables in markdown. Processes have one thread each, but for `before`, which keeps torch's number of threads. Runs
that are compared alternate. Accelerate is optional: `pip install -r benchmarks/requirements.txt`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from time import perf_counter, sleep
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.trainers import describe_machine, format_range  # noqa: E402

FP64 = ("epochs=3", "precision=fp64", "threads=1", "progress=false")
CUTS = {"1 × (32, 4)": (1, 32, 4), "2 × (16, 4)": (2, 16, 4), "2 × (32, 2)": (2, 32, 2), "4 × (8, 4)": (4, 8, 4)}
SETTINGS: dict[str, tuple[str, ...]] = {
    "the defaults": (),
    "class weights, clipping": ("task.class_weights=balanced", "max_grad_norm=0.5"),
    "crop_flip": ("augment=crop_flip",),
    "mixup": ("augment=mixup",),
    "cutmix": ("augment=cutmix",),
    "SAM, adamw": ("step=sam", "optimizer=adamw", "optimizer.lr=0.003"),
    "5 samples in the last window": ("dataset.val_samples=76",),  # 3 of 4 processes have none
}
INTERRUPTED = (*FP64, "strategy=ddp", "strategy.processes=2", "batch_size=8", "accum=2")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
RESUMED_ON = (2, 4, 1)
PLANNED = (*FP64, "strategy=ddp", "strategy.processes=4", "batch_size=32")
MODELS = {"BatchNorm": ("model.norm=batch",), "dropout": ("model=mlp", "model.dropout=0.5")}

RESNET = ("dataset=synthetic", "dataset.val_samples=64", "dataset.test_samples=64", "model=resnet18")
WINDOW, STEPS = 128, 5  #: samples, and steps of which the first is not measured
WORK = (
    *(*RESNET, f"dataset.samples={WINDOW * STEPS + 64}", "batch_size=64", "epochs=1"),
    *("threads=1", "progress=false", "logger=jsonl", "log_every_steps=1"),
)
IN_TWO = ("strategy=ddp", "strategy.processes=2")
BEFORE = {  # workload: overrides, pairs of epochs
    "digits, small_cnn": (("dataset=digits",), 120),
    "32×32, resnet18": ((*RESNET, "dataset.samples=192"), 10),
}


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    if arguments.what == "serve":
        serve(arguments.words)
        return
    print(describe_machine(), "\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if arguments.what == "equality":
            print_table(["", *list(CUTS)[1:]], ([name, *row] for name, row in measure_cuts(home)))
            print_table(["interrupted in 2 processes, resumed in", "distance"], measure_resumes(home))
            print_table(["planned for 4 processes", "run in 2", "run in 4"], measure_plans(home))
        elif arguments.what == "before":
            columns = ["", "before, ms per epoch", "now, ms per epoch", "now ÷ before", "pairs"]
            print_table(columns, compare_versions(Path(arguments.words[0])))
        elif arguments.what == "speed":
            print_table(["", "s per step", "speedup"], compare_speed(home, arguments.rounds))
        else:
            print_table(["", "ms per step", "share"], divide_window(home))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equality", "before", "speed", "window", "serve"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def print_table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Print a table, each row as soon as it is measured."""
    for row in (columns, ["---"] * len(columns)):
        print(f"| {' | '.join(row)} |")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


# Equality


def measure_cuts(home: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each setting with the distances of its cuts from one process."""
    for number, name in enumerate(SETTINGS):
        runs = [train_cut(name, cut, home / f"{number}-{index}") for index, cut in enumerate(CUTS)]
        yield name, [f"{distance(runs[0], run):.1e}" for run in runs[1:]]


def train_cut(setting: str, cut: str, run_dir: Path) -> Path:
    processes, batch_size, accum = CUTS[cut]
    strategy = ("strategy=ddp", f"strategy.processes={processes}") if processes > 1 else ()
    train(*FP64, *SETTINGS[setting], *strategy, f"batch_size={batch_size}", f"accum={accum}", run_dir=run_dir)
    return run_dir


def measure_resumes(home: Path) -> Iterator[Sequence[str]]:
    """Yield the distance of resumed runs from one that was not interrupted."""
    whole, stopped = home / "whole", home / "stopped"
    train(*INTERRUPTED, run_dir=whole)
    step = interrupt(*INTERRUPTED, run_dir=stopped)
    for processes in RESUMED_ON:
        resumed = resume_on(processes, stopped)
        yield f"{processes} (step {step} of {count_steps(whole)})", f"{distance(whole, resumed):.1e}"


def measure_plans(home: Path) -> Iterator[Sequence[str]]:
    """Yield the distances of runs in several processes from the one that runs the same plan in one."""
    for name, model in MODELS.items():
        runs = {processes: home / f"{name}-{processes}" for processes in (1, 2, 4)}
        for processes, run_dir in runs.items():
            train(*PLANNED, *model, f"strategy.run_on={processes}", run_dir=run_dir)
        yield name, *(f"{distance(runs[1], runs[processes]):.1e}" for processes in (2, 4))


def interrupt(*words: str, run_dir: Path) -> int:
    """Stop a run by SIGTERM in the middle of its second epoch. Return the number of steps that it has made."""
    process = subprocess.Popen(command(*words, run_dir=run_dir), **QUIET)
    metrics = run_dir / "metrics.csv"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 1):
        sleep(0.01)
    sleep(0.4 * float(next(csv.DictReader(metrics.open()))["seconds"]))  # in the middle
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    return count_steps(run_dir)


def resume_on(processes: int, stopped: Path) -> Path:
    """Return a copy of a run that is resumed in so many processes."""
    resumed = stopped.with_name(f"resumed-on-{processes}")
    shutil.copytree(stopped, resumed)
    run([sys.executable, str(ROOT / "train.py"), f"resume={resumed}", f"strategy.run_on={processes}"])
    return resumed


def distance(one: Path, other: Path) -> float:
    """Return the largest relative L2 distance of two runs' tensors; 0 if all bits are the same."""
    from safetensors.torch import load_file

    weights, others = (load_file(run / "model.safetensors") for run in (one, other))
    pairs = [(tensor.double(), others[name].double()) for name, tensor in weights.items()]
    return max(((a - b).norm() / a.norm().clamp_min(1e-300)).item() for a, b in pairs)


def count_steps(run_dir: Path) -> int:
    return int(json.loads((run_dir / "run.json").read_text())["optimizer_steps"])


# Runs


def command(*words: str, run_dir: Path) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={run_dir}"]


def train(*words: str, run_dir: Path) -> None:
    run(command(*words, run_dir=run_dir))


def run(words: Sequence[str], **environment: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nfailed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def seconds_per_step(run_dir: Path) -> float:
    return median(seconds_of_steps(run_dir))


def seconds_of_steps(run_dir: Path) -> list[float]:
    """Return the seconds of the steps of a run but the first, which also prepares memory and connections."""
    lines = map(json.loads, (run_dir / "log.jsonl").read_text().splitlines())
    rates = [line["train/samples_per_second"] for line in lines if "train/samples_per_second" in line]
    assert len(rates) == STEPS
    return [WINDOW / rate for rate in rates[1:]]


# strategy=single against an earlier version


def compare_versions(checkout: Path) -> Iterator[Sequence[str]]:
    """Yield the seconds of epochs of both versions, each in a process of its own that waits while the other trains."""
    for name, (words, pairs) in BEFORE.items():
        with served(checkout, words) as before, served(ROOT, words) as now:
            seconds = [(before(), now()) if pair % 2 else (now(), before())[::-1] for pair in range(pairs)]
        medians = [f"{1000 * median(column):.1f}" for column in zip(*seconds, strict=True)]
        yield name, *medians, f"{median(b / a for a, b in seconds):.3f}", str(pairs)


@contextmanager
def served(checkout: Path, words: Sequence[str]) -> Iterator[Callable[[], float]]:
    """Start a process of a version that trains an epoch for each call, and returns its seconds."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment, "cwd": checkout}
    process = subprocess.Popen([sys.executable, __file__, "serve", *words], **pipe)
    assert process.stdin and process.stdout
    assert Path(process.stdout.readline().strip()) == checkout.resolve() / "src/microstep"

    def train_epoch() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    train_epoch()
    try:
        yield train_epoch
    finally:
        process.stdin.close()
        process.wait()


def serve(words: Sequence[str]) -> None:
    """Train an epoch for each line of stdin and print its seconds of training. Nothing is saved."""
    import microstep
    from microstep.config.compose import compose
    from microstep.training.build import build_trainer

    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a run prints is no answer
    with tempfile.TemporaryDirectory() as run_dir:
        trainer = build_trainer(compose([*words, "epochs=100000", "progress=false"]), run_dir)
        trainer.__dict__["save"] = lambda best=False: None
        print(Path(microstep.__file__).parent, file=output)
        for epoch, _ in enumerate(sys.stdin, start=1):
            trainer.run_epoch(epoch)
            print(trainer.loaders.samples / trainer.throughput.samples_per_second, file=output)


# Two processes against one


def compare_speed(home: Path, rounds: int) -> Iterator[Sequence[str]]:
    """Yield the seconds per step of each way to train with the same windows, and its speedup."""
    workload = home / "workload.pt"
    run([sys.executable, "-m", "benchmarks.contestants.prepare", str(workload), *WORK], PYTHONPATH=str(ROOT))
    ways: dict[str, Callable[[Path], float]] = {
        "microstep, 1 process, `accum=2`": partial(time_run, "accum=2"),
        "**microstep, 2 processes, `strategy=ddp`**": partial(time_run, *IN_TWO),
        "2 runs at once that exchange nothing, half of their time": time_two_runs,
        "DistributedDataParallel, 2 processes": partial(time_other, "ddp", workload),
    }
    if find_spec("accelerate"):
        ways["Accelerate, 2 processes"] = partial(time_other, "accelerate", workload)
    seconds = defaultdict[str, list[float]](list)
    for number in range(rounds):
        for index, (name, way) in enumerate(ways.items()):
            seconds[name].append(way(home / f"{index}-{number}"))
            print(f"round {number + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    base = next(iter(seconds.values()))
    for name, measured in seconds.items():
        speedup = median(one / other for one, other in zip(base, measured, strict=True))
        yield name, format_range(measured, 2), f"{speedup:.2f}"


def time_run(*words: str) -> float:
    *words, run_dir = words
    train(*WORK, *words, run_dir=Path(run_dir))
    return seconds_per_step(Path(run_dir))


def time_two_runs(home: Path) -> float:
    """Return half of the seconds per step while two runs that know nothing of each other share the machine."""
    runs = [home / "one", home / "other"]
    processes = [subprocess.Popen(command(*WORK, "accum=2", run_dir=r), **QUIET) for r in runs]
    assert [process.wait() for process in processes] == [0, 0]
    return sum(map(seconds_per_step, runs)) / 4


def time_other(name: str, workload: Path, home: Path) -> float:
    """Return the seconds per step of a loop that torchrun starts in two processes."""
    home.mkdir()
    module, file = "benchmarks.contestants.in_processes", home / "seconds.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", module]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run([*torchrun, name, str(workload), str(file)], PYTHONPATH=path, OMP_NUM_THREADS="1")
    return median(json.loads(file.read_text())[1:STEPS])


# Where the time goes


def divide_window(home: Path) -> Iterator[Sequence[str]]:
    """Yield the parts of a step in two processes, as rank 0 sees them. A gather includes waiting."""
    from microstep.components.strategy.connection import Connection
    from microstep.components.strategy.data_parallel import DataParallel
    from microstep.components.strategy.gradient_sums import AllReduce
    from microstep.config.compose import compose
    from microstep.training.build import build_trainer

    marks: dict[str, list[Any]] = defaultdict(list)
    owners = {"reduce": DataParallel, "gather": DataParallel, "finish": AllReduce, "sum": Connection}
    for name, owner in owners.items():
        setattr(owner, name, timed(getattr(owner, name), marks[name]))
    build_trainer(compose([*WORK, *IN_TWO]), home / "run").fit()
    reduce, summed, sent = (mean_of_later(marks[name]) for name in ("reduce", "finish", "sum"))
    gathered = mean_of_later(gathers_in_training(marks))
    whole = 1000 * mean(seconds_of_steps(home / "run"))
    parts = {
        "data, forward, backward, training metrics": reduce - gathered - summed,
        "gather of outputs, losses and statistics, with waiting for the other process": gathered,
        "all-reduce of the gradient": sent,
        "copying the gradient into one message and back": summed - sent,
        "clipping, optimizer, schedule, logs": whole - reduce,
        "step": whole,
    }
    for name, milliseconds in parts.items():
        yield name, f"{milliseconds:.1f}", f"{milliseconds / whole:.1%}"


def timed(function: Callable[..., Any], marks: list[Any]) -> Callable[..., Any]:
    """Return the function, which notes when it begins and its milliseconds."""

    def wrapper(*arguments: Any) -> Any:
        began = perf_counter()
        try:
            return function(*arguments)
        finally:
            marks.append((began, 1000 * (perf_counter() - began)))

    return wrapper


def gathers_in_training(marks: dict[str, list[Any]]) -> list[Any]:
    """Return the gathers of the steps, and none of the evaluations."""
    spans = [(began, began + milliseconds / 1000) for began, milliseconds in marks["reduce"]]
    return [mark for mark in marks["gather"] if any(first < mark[0] < last for first, last in spans)]


def mean_of_later(marks: list[Any]) -> float:
    return sum(milliseconds for _, milliseconds in marks[1:]) / (STEPS - 1)


if __name__ == "__main__":
    main()
