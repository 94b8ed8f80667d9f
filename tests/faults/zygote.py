"""A process that has imported everything and forks the programs on request: a real process each, without the start-up.

It speaks lines of JSON: `{"program", "words", "cwd", "environment"}` is answered by a pid, `{"wait": pid}` by an exit
code, negative for a signal as subprocess has it.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def serve() -> None:
    """Answer until there is nothing more to read."""
    import torch

    import microstep.resuming
    import microstep.task  # noqa: F401  # whatever a run will need, but for cli, which notes whose process it is

    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # imports what any optimizer does
    for line in sys.stdin:
        asked = json.loads(line)
        pid = asked.get("wait") or begin(**asked)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if "wait" in asked else pid
        print(code, flush=True)


def begin(program: str, words: list[str], cwd: str, environment: dict[str, str]) -> int:
    """Fork a process group of its own that runs a program as a shell would."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    os.chdir(cwd)
    os.environ.update(environment)
    descriptor = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv[1:] = words
    try:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    except SystemExit as leaving:
        sys.stdout.flush()
        os._exit(int(leaving.code or 0))
    os._exit(0)


@dataclass
class Zygote:
    """The other end."""

    process: subprocess.Popen[str]

    @classmethod
    def started(cls) -> Zygote:
        """Return a zygote that is ready."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        command = [sys.executable, "-m", "tests.faults.zygote"]
        pipe = subprocess.PIPE
        return cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT))

    def start(self, program: str, *words: str, cwd: Path, **environment: str) -> int:
        """Start a program, whose output goes to `output.txt` in its working directory; return its pid."""
        return self.ask(program=program, words=words, cwd=str(cwd), environment=environment)

    def wait(self, pid: int) -> int:
        """Return a program's exit code."""
        return self.ask(wait=pid)

    def run(self, program: str, *words: str, cwd: Path, **environment: str) -> int:
        """Start a program, wait for it, return its exit code."""
        return self.wait(self.start(program, *words, cwd=cwd, **environment))

    def ask(self, **message: Any) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """Let it end."""
        with self.process:  # closes both ends
            pass


if __name__ == "__main__":
    serve()
