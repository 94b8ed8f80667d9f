"""Failed runs and untrusted run directories: every run is named, and text stays text."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from microstep.errors import ConfigError
from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.rendering import code, markdown_cell
from microstep.sweep.summary.tables import Code
from microstep.sweep.summary.write import write_summary
from tests.conftest import irregular
from tests.sweep.summary.sweeps import plant_index, plant_run, plant_sweep, record

SCRIPT = "<script>alert('x')</script>"
FILES = ("summary.csv", "summary.md", "summary.html")


class Tags(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set[str](), set[str](), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data) -> None:
        self.text += data


def written(directory: Path, html: bool = True) -> dict[str, str]:
    """Return the files, freshly written."""
    write_summary(directory, html)
    return {name: (directory / name).read_text(encoding="utf-8") for name in FILES if html or "html" not in name}


def test_all_six_of_six_are_named(tmp_path):
    """Runs that raised, were killed, called sys.exit, were stopped, wait or finished are all named."""
    directory = plant_sweep(tmp_path / "s", {"accum": range(1, 7)}, lambda v: 0.9)
    told = {
        2: {"status": "failed", "error": "ZeroDivisionError: by zero"},
        3: {"status": "running", "error": None},
        4: {"status": "failed", "error": "SystemExit: 3"},
        5: {"status": "interrupted", "error": "stopped by signal 15"},
    }
    for accum, facts in told.items():
        plant_run(directory / f"accum-{accum}", facts)
    (directory / "accum-6" / "run.json").unlink()
    for name, text in written(directory).items():
        assert all(f"accum-{accum}" in text for accum in range(1, 7)), name
        for said in (
            "ZeroDivisionError: by zero",
            "it is running, or was killed",
            "SystemExit: 3",
            "it has not started",
        ):
            assert said in text
    text = (directory / "summary.md").read_text()
    assert "6 runs: 1 finished, 2 failed, 1 interrupted, 1 running, 1 waiting." in text
    failures = text.partition("## Failures")[2].partition("## Runs")[0]
    assert re.findall(r"`accum-(\d)`", failures) == ["2", "3", "4", "5", "6"]
    assert "python train.py -m accum=1,2,3,4,5,6 sweep=s" in failures


def test_how_a_process_ended_that_could_not_say_it_itself(tmp_path):
    """The error in sweep.json is shown if run.json still says running, or is missing."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2, 3]}, lambda v: 0.9)
    plant_run(directory / "accum-1", {"status": "running"})
    (directory / "accum-2" / "run.json").unlink()
    index = json.loads((directory / "sweep.json").read_text())
    for job in index["jobs"].values():
        job["error"] = "killed by signal 9"
    (directory / "sweep.json").write_text(json.dumps(index))
    rows = list(csv.DictReader(written(directory)["summary.csv"].splitlines()))
    assert [(row["status"], row["error"]) for row in rows] == [("failed", "killed by signal 9")] * 2 + [
        ("finished", "")
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"status": 3}', b"[" * 5000, b" " * 2**21])
def test_a_damaged_run_json_is_that_runs_alone(tmp_path, content):
    """The run is shown as unreadable; the others are not affected."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: 0.9)
    (directory / "accum-2" / "run.json").write_bytes(content)
    text = written(directory, html=False)["summary.md"]
    assert "2 runs: 1 finished, 1 unreadable." in text
    assert "| 1 | `accum=1` | 0.9000 |" in text


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop"])
@pytest.mark.parametrize("name", ["run.json", "metrics.csv", "config.yaml"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind, name):
    """A pipe, a device or a cycle of links in a run directory doesn't block the summary."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2], "model.width": [8]}, lambda v: 0.9)
    index = json.loads((directory / "sweep.json").read_text())
    index["jobs"]["accum-2_model.width-8"]["overrides"] = ["accum=2"]  # so that config.yaml is asked
    (directory / "sweep.json").write_text(json.dumps(index))
    (directory / "accum-2_model.width-8" / name).unlink(missing_ok=True)
    irregular(directory / "accum-2_model.width-8" / name, kind)
    assert "accum-2_model.width-8" in written(directory, html=name == "metrics.csv")["summary.md"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n\n",
        "epoch",
        "epoch,val_accuracy,seconds\n1,nan,inf\n2,0.5",
        "epoch,val_accuracy\n1,0.5,7,8\n",
        "\0",
        '"' * 99,
        "é",
    ],
)
def test_a_damaged_or_half_written_metrics_csv_is_that_runs_alone(tmp_path, content):
    """The page is drawn without the curve that can't be read."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: 0.9)
    (directory / "accum-2" / "metrics.csv").write_bytes(content.encode("latin-1"))
    assert "accum-2" in written(directory)["summary.html"]


def test_only_whole_rows_of_a_metrics_csv_count(tmp_path):
    """A last line without a line end is left out, because it may be incomplete; so are rows after a damaged one."""
    directory = plant_sweep(tmp_path / "s", {}, lambda v: 0.9)
    (run,) = read_sweep(directory).runs
    for text, epochs in (
        ("1,0.5\n2,0.61", [1]),
        ("1,0.5\n2\n3,0.7\n", [1]),
        ("1,0.5\nx,0.6\n", [1]),
        ("1,nan\n2,0.6\n", [1, 2]),
    ):
        (directory / "defaults" / "metrics.csv").write_text(f"epoch,val_accuracy\n{text}")
        found = run.saved.epochs
        assert [row["epoch"] for row in found] == epochs
    assert "val_accuracy" not in found[0]


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999", '"much"', "true", "null", str(10**400)])
def test_a_metric_that_is_no_number_is_not_ranked(tmp_path, value):
    """A run with an infinite metric is not the best."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: 0.9)
    file = directory / "accum-2" / "run.json"
    file.write_text(file.read_text().replace("0.9,", f"{value},").replace("0.9}", f"{value}}}"))
    assert "Best by validation: accum=1, accuracy 0.9000" in written(directory, html=False)["summary.md"].replace(
        "\\", ""
    )


def test_an_error_stays_on_its_line(tmp_path):
    """Characters that would move a terminal's cursor or end a table's row are shown as escapes."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: 0.9)
    plant_run(directory / "accum-2", {"status": "failed", "error": "a\x1b[2J\n\n# b"})
    for text in written(directory).values():
        assert "a\\x1b[2J\\n\\n# b" in text and "\x1b" not in text


def test_strange_facts_are_left_out(tmp_path):
    """With invalid numbers, lists instead of texts or thousands of metrics, the run is still listed."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: 0.9)
    odd = {"train_seconds": "soon", "samples_per_second": True, "peak_memory_bytes": 1e999, "epoch": [1], "monitor": 3}
    many = {f"m{n}": n for n in range(1000)}
    plant_run(
        directory / "accum-2",
        record(0.5, 0.5, **odd, choices=[1], error={"a": 1}) | {"metrics": {"val": many, "test": 7}},
    )
    header, _, two = written(directory)["summary.csv"].splitlines()
    assert len(header.split(",")) < 80
    assert two.startswith("accum-2,finished,2,,")


def hostile(tmp_path: Path, word: str) -> Path:
    """Return a sweep in which every text from a file is a given word."""
    directory = plant_index(
        tmp_path / "s", {"a": [f"{word}=1", "seed=0"], f"b{word}": [f"{word}={word}", "seed=1"]}, word
    )
    metrics = {"val": {word: 0.5, "loss": 1.0}, "test": {word: 0.4}, "best": {"epoch": 1, word: 0.5}}
    facts = record(0, 0, monitor=word, choices={"dataset": word}) | {"metrics": metrics}
    plant_run(directory / "a", facts, monitor=word)
    plant_run(directory / f"b{word.replace('/', '')}", facts | {"status": "failed", "error": f"{word} {word}"})
    index = json.loads((directory / "sweep.json").read_text())
    index["jobs"] |= {f"c{word.replace('/', '')}": {"overrides": [f"{word}={word}"], "error": word}}
    (directory / "sweep.json").write_text(json.dumps(index | {"name": word, "stale": {word: word}}))
    return directory


@pytest.mark.parametrize(
    "word", [SCRIPT, '"><img src=x onerror=alert(1)>', "</svg><script>1</script>", "&lt;b&gt;", r"$\frac{$"]
)
def test_no_text_becomes_markup_of_the_page(tmp_path, word):
    """Markup in a name, key, value, metric, error or command does not become an element of the page."""
    page = Tags(written(hostile(tmp_path, word))["summary.html"])
    assert not {"script", "img", "b", "iframe", "object", "link"} & page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert word in page.text


def test_no_text_becomes_markup_of_the_markdown(tmp_path):
    """Outside of code every special character is escaped, and no bar ends a cell early."""
    text = written(hostile(tmp_path, f"{SCRIPT} [a](b) *c* `d` | e"))["summary.md"]
    prose = re.sub(r"^    .*$|(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)[<\[*`](?!\*|[A-Z])", re.sub(r"^\*.*\*$", "", prose, flags=re.MULTILINE))
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)]
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize("text", ["`", "``a`", "a`b", "|", "a\\|b", "\\"])
def test_code_holds_any_text(text):
    """Backticks in a text don't end its code, and a bar is escaped in a table."""
    fence = re.match("`+", code(text))
    assert fence and fence[0] not in text.replace(fence[0] + "`", "")
    assert not re.search(r"(?<!\\)\|", markdown_cell(Code(text)))


def test_what_a_spreadsheet_would_compute_is_a_text_to_it(tmp_path):
    """A text in summary.csv that begins like a formula gets an apostrophe; numbers stay numbers."""
    directory = plant_sweep(tmp_path / "s", {"accum": [1, 2]}, lambda v: -0.5)
    plant_run(directory / "accum-2", {"status": "failed", "error": '=HYPERLINK("http://x")'})
    one, two = csv.DictReader(written(directory)["summary.csv"].splitlines())
    assert two["error"].startswith("'=")
    assert one["val_accuracy"] == "-0.5"


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/../../outside", "..", ""])
def test_no_run_is_read_from_elsewhere(tmp_path, name):
    """A name that leads out of the sweep's directory is shown but not followed."""
    plant_run(tmp_path / "outside", record(0.9, 0.9))
    directory = plant_index(tmp_path / "s", {name: ["accum=1"], "b": ["accum=2"]})
    assert "1 unreadable" in written(directory, html=False)["summary.md"]


@pytest.mark.parametrize("name", ["a\0b", "\udc80", "x" * 5000, "line\nbreak", "‮evil"])
def test_a_name_that_no_file_can_have_is_named_all_the_same(tmp_path, name):
    """The name is escaped if it can't be shown."""
    directory = plant_index(tmp_path / "s", {name: ["accum=1"], "b": ["accum=2"]})
    for text in written(directory).values():
        assert not set(text) & {"\0", "‮"}


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_without_a_sweep_json_there_is_nothing_to_summarise(tmp_path, content):
    """A sweep.json that can't be read raises a ConfigError with one line."""
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ConfigError, match=r"sweep\.json can't be read"):
        write_summary(tmp_path)


@pytest.mark.parametrize(
    "index", [{}, {"jobs": []}, {"jobs": {"a": 3}, "stale": []}, {"jobs": {"a": {"overrides": "accum=1"}}}]
)
def test_an_odd_sweep_json_is_summarised_as_far_as_it_goes(tmp_path, index):
    """An empty sweep has a summary too."""
    (tmp_path / "sweep.json").write_text(json.dumps(index))
    assert "nothing to compare" in written(tmp_path)["summary.html"]


def test_nothing_is_left_besides_the_three_files(tmp_path):
    """No temporary file stays."""
    directory = plant_sweep(tmp_path / "s", {}, lambda v: 0.9)
    before = {file.name for file in directory.iterdir()}
    written(directory)
    assert {file.name for file in directory.iterdir()} - before == set(FILES)
