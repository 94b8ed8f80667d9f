"""A process that has imported everything and forks the programs on request: a real process each, without the start-up.

It speaks lines of JSON: `{"program", "words", "cwd", "environment", "outputs"}` is answered by a pid, `{"wait": pid}`
by an exit code, negative for a signal as subprocess has it.

What such a process can't tell is what a program imports, or would: that is for `tests.conftest.call`.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Whatever a run will need, but for cli and a launcher's worker, which note whose process it is.
IMPORTED = (
    "torchvision",
    "hydra._internal.hydra",
    "microstep.components.task.classification.report",
    "microstep.diagnostics",
    "microstep.evaluation.evaluate",
    "microstep.training.resume",
)
TIMEOUT = 300  #: seconds, after which a program that `call` waits for is killed


def serve() -> None:
    """Answer requests until stdin is closed."""
    for name in IMPORTED:
        import_module(name)
    import PIL.Image
    import torch
    from hydra.core.plugins import Plugins

    from microstep.utils.plotting import new_figure, png_bytes

    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # imports what any optimizer does
    figure = new_figure(1, 1)
    figure.add_subplot()
    png_bytes(figure)  # the first image searches the fonts
    PIL.Image.init()
    Plugins.instance()
    gc.freeze()  # a collection in a program would copy the memory of all imports
    print(os.getpid(), flush=True)  # ready
    while asked := json.loads(sys.stdin.readline() or "null"):
        pid = asked.get("wait") or begin(**asked)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if "wait" in asked else pid
        print(code, flush=True)


def begin(program: str, words: list[str], cwd: str, environment: dict[str, str], outputs: list[str]) -> int:
    """Fork a process group of its own that runs a program as a shell would, its stdout and its stderr in files."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for standard, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv[1:] = words
    sys.orig_argv = ["python", str(ROOT / program), *words]
    code = 0
    try:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    sys.stdout.flush()
    os._exit(code)


@dataclass
class Zygote:
    """Client of the zygote process."""

    process: subprocess.Popen[str]

    @classmethod
    def started(cls) -> Zygote:
        """Return a zygote that is ready, so that how long a program takes can be measured."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        command = [sys.executable, "-m", "tests.faults.zygote"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT)
        assert process.stdout and int(process.stdout.readline()) == process.pid
        return cls(process)

    def start(self, program: str, *words: str, cwd: Path, **environment: str) -> int:
        """Start a program, whose output goes to `output.txt` in its working directory; return its pid."""
        return self.begin(program, words, cwd, environment, "output.txt", "output.txt")

    def begin(self, program: str, words: Sequence[str], cwd: Path, environment: dict[str, str], *outputs: str) -> int:
        return self.ask(program=program, words=words, cwd=str(cwd), environment=environment, outputs=outputs)

    def wait(self, pid: int) -> int:
        """Return a program's exit code."""
        return self.ask(wait=pid)

    def run(self, program: str, *words: str, cwd: Path, **environment: str) -> int:
        """Start a program, wait for it, return its exit code."""
        return self.wait(self.start(program, *words, cwd=cwd, **environment))

    def call(self, program: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program as `tests.conftest.call` does."""
        with tempfile.TemporaryDirectory(prefix="microstep-call-") as place:
            outputs = [Path(place) / name for name in ("stdout", "stderr")]
            pid = self.begin(program, words, cwd, environment, *map(str, outputs))
            timer = Timer(TIMEOUT, killed, [pid])
            timer.start()
            code = self.wait(pid)
            timer.cancel()
            stdout, stderr = (file.read_text() for file in outputs)
        return subprocess.CompletedProcess([program, *words], code, stdout, stderr)

    def ask(self, **message: Any) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """Let it end. A process that was forked meanwhile may hold the other end of its stdin: it is told."""
        assert self.process.stdin
        self.process.stdin.write("null\n")
        with self.process:  # closes both ends
            pass


def killed(group: int) -> None:
    """Kill a group of processes that takes too long, if it is still there."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    serve()
