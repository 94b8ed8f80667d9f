"""Runs the commands that the documents tell a reader to type."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.components.dataset.tables import grouped
from tests.conftest import ROOT

COMMANDS = "".join((ROOT / name).read_text() for name in ("README.md", "docs/commands.md"))
PYTHON = (ROOT / "docs" / "python.md").read_text()
PAGES = [*ROOT.glob("README*.md"), *ROOT.glob("benchmarks/*.md"), *sorted(ROOT.glob("docs/*.md"))]
RUN_DIRECTORY = (ROOT / "docs" / "run-directory.md").read_text()


def commands() -> list[str]:
    """Return every command of the pages' blocks that is one of the three programs', comments left out."""
    lines = (line.split("  #")[0].strip() for line in COMMANDS.splitlines() if line.startswith("    "))
    return list(dict.fromkeys(line for line in lines if re.match(r"python (train|evaluate|compute_stats)\.py", line)))


def code_blocks(text: str) -> list[str]:
    """Return a document's indented blocks, dedented."""
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", text, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in blocks if block.strip()]


LONG = ("steps=2000", "model=resnet18", "accum=1,2,4", "sweep=amp_study")  #: in commands that take long
COMMANDS_TO_RUN = [
    pytest.param(command, marks=[pytest.mark.long] if any(word in command for word in LONG) else [])
    for command in commands()
]


@pytest.mark.parametrize("command", COMMANDS_TO_RUN)
def test_a_command_of_the_pages_runs(zygote, command, trained, idx_files, photos, tmp_path) -> None:
    """Typed as it stands, it ends with exit code 0, or 1 where a loop is looked at that isn't exact.

    Only Fashion-MNIST is replaced by a few made-up pictures. A sweep's runs are of one epoch here, as are those of
    check=drift: the first commands train such runs to their end. One at a time is active.
    """
    run = shutil.copytree(trained, tmp_path / "its run")  # other tests look at what is in the original
    places = {"RUN_DIR": run, "RUN_B": trained, "=DIR": f"={photos}", "FOLDER": photos / "test"}
    places |= {"labels.csv": grouped(tmp_path / "listed")} if "labels.csv" in command else {}
    words = shlex.split(command)
    for word, place in places.items():
        words = [typed.replace(word, str(place)) for typed in words]
    program, *words = words[1:]
    if "fashion" in command:
        words += [f"dataset.root={idx_files}", "dataset.val_samples=20"]
        words += ["epochs=1"] if program == "train.py" else []
    if ("image_folder" in command or "=photos" in command) and program == "train.py":
        words += ["batch_size=16", "epochs=1", "dataset.val_fraction=0.2"]
    words += ["epochs=1", "batch_size=16"] if "dataset=table" in words else []
    words += ["batch_size=16"] if "cifar10_fast" in command else []
    words += ["hydra.launcher.n_jobs=1"] if "hydra/launcher=local" in words else []
    words += ["epochs=1"] if "-m" in words or "check=drift" in words else []
    words += ["decide.max_seeds=2"] if "until=decided" in words else []
    words += ["search.trials=3"] if "search=tpe" in words else []
    done = zygote.call(program, *words, cwd=tmp_path)
    assert done.returncode == int("rule=" in command), done.stderr


def test_there_are_commands_to_run() -> None:
    """The pages name each of the programs; the README shows eight commands."""
    shown = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    python ")]
    assert len(shown) == 8
    assert {shlex.split(command)[1] for command in commands()} == {"train.py", "evaluate.py", "compute_stats.py"}


def test_the_python_example_runs(tmp_path) -> None:
    """The few lines of docs/python.md compose, train and read results."""
    example = next(block for block in code_blocks(PYTHON) if block.startswith("from microstep import"))
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "notebook" / "run.json").exists()


def test_the_weights_for_others_are_read_as_the_page_shows(zygote, trained, tmp_path) -> None:
    """The example of docs/run-directory.md classifies the first digit, which is a zero, and is sure of it."""
    (example,) = (block for block in code_blocks(RUN_DIRECTORY) if "safe_open" in block)
    (tmp_path / "example.py").write_text(example.replace("RUN_DIR", str(trained)))
    done = zygote.call(str(tmp_path / "example.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"0 0\.[5-9]\d{3}\n", done.stdout)


def test_the_page_names_every_key_of_the_weights_for_others(trained) -> None:
    """No key of the metadata is left out of docs/run-directory.md's table, and none is there that isn't in the file."""
    section = RUN_DIRECTORY.partition("## Weights for others")[2].partition("What a data set")[0]
    keys = " ".join(re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE))
    with safe_open(trained / "model.safetensors", "pt") as file:
        assert set(re.findall(r"\w+", keys)) == set(file.metadata())


def test_tensorboard_serves_the_runs(trained) -> None:
    """`tensorboard --logdir` over a run answers, and names the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("tensorboard")
    server = subprocess.Popen([program, "--logdir", trained.parent, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        assert answer(f"http://127.0.0.1:{port}/data/runs") == '["run"]'
    finally:
        server.terminate()
        server.wait()


def answer(url: str) -> str:
    """Return what a server that is starting up answers at last."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                text = reply.read().decode()
            if text.strip() != "[]":
                return text.strip()
        except OSError:
            pass
        time.sleep(0.25)
    raise AssertionError("no answer")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_leads_somewhere(page) -> None:
    """Each link to a file of the repository names one, and each anchor a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert re.match("https?://", target) or file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_index_names_every_page() -> None:
    """A page that docs/README.md doesn't link to can't be found."""
    linked = re.findall(r"\]\(([^)#]+\.md)\)", (ROOT / "docs" / "README.md").read_text())
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(linked)


def test_the_readme_is_short() -> None:
    """It is read in two minutes; everything else is in docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
