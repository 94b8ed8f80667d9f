"""The page needs no other file, describes each image, and is the same for the same files."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from microstep.sweep.summary.charts import make_curve
from microstep.sweep.summary.write import write_summary
from tests.sweep.summary.sweeps import plant_run, plant_sweep


def score(values: dict[str, str]) -> float:
    return 0.9 - 0.01 * int(values["accum"]) + 0.001 * int(values["seed"])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with three settings, two seeds, a failure, and a batch size that `accum` changed."""
    home = tmp_path_factory.mktemp("page")
    size = {"effective_batch_size": lambda v: 64 * int(v["accum"])}
    directory = plant_sweep(home / "study", {"accum": [1, 2, 4], "seed": [0, 1]}, score, **size)
    plant_run(directory / "accum-4_seed-1", {"status": "failed", "error": "ZeroDivisionError: by zero"})
    write_summary(directory)
    return directory


def html(directory: Path) -> str:
    return (directory / "summary.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects a page's tags in order, and checks that each that is opened is closed."""

    EMPTY = frozenset({"meta", "br", "use", "path", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened, self.open, self.ids = list[tuple[str, dict[str, str | None]]](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.opened.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_there_is_no_outside_address(sweep):
    """The page has no scheme, protocol-relative reference or import: every reference is to the page itself."""
    text = html(sweep)
    assert not re.search(r"(?i)https?:|ftp:|@import", text)
    assert not re.search(r"""(?i)\b(?:src|srcset|href|action|data|poster)\s*=\s*(?:["'](?!#)|[^"'\s])""", text)
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"(?i)<(?:script|link|img|iframe|object|embed|base|form)\b|doctype svg|<metadata", text)
    assert "default-src 'none'" in text


def test_every_picture_and_every_table_has_a_caption(sweep):
    """Each image and table has a caption, and each image a label for screen readers."""
    text = html(sweep)
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == text.count("<svg") + text.count("<table") == 6 + 5
    for figure in figures:
        assert re.search(r"<figcaption>[^<]{30,}</figcaption>", figure)
        assert re.search(r'(<svg role="img" aria-label="[^"]{10,}"|<table>)', figure)


def test_every_setting_run_and_key_is_in_it(sweep):
    """The page has the leaderboard, effects, both curves, speed, the failure and the separating command."""
    text = html(sweep)
    for part in ("leaderboard", "main", "curves", "speed", "failures", "runs"):
        assert f'<section id="{part}"' in text and f'href="#{part}"' in text
    for said in ("Main effect of accum", "Main effect of seed", "accuracy by epoch", "accuracy by seconds"):
        assert said in text
    assert "effective_batch_size=64 sweep=study_same_batch" in text
    assert all(run.name in text for run in sweep.iterdir() if run.is_dir())


def test_the_page_is_well_formed(sweep):
    """Every tag is closed in order, and no id occurs twice."""
    outline = Outline(html(sweep))
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))


def test_colours_are_the_pages(sweep):
    """Images use the colors of the page, so that they are light on dark on a dark screen."""
    pictures = "".join(re.findall(r"<svg.*?</svg>", html(sweep), flags=re.DOTALL))
    assert "var(--series-1)" in pictures and "var(--ink)" in pictures
    assert not re.search(r"(?:fill|stroke): (?!none|var)", pictures)
    assert "prefers-color-scheme: dark" in html(sweep)


def test_the_same_files_make_the_same_bytes(sweep, tmp_path):
    """A summary of a copy of the directory in another place has the same bytes."""
    shutil.copytree(sweep, tmp_path / "study")
    for name in ("summary.csv", "summary.md", "summary.html"):
        (tmp_path / "study" / name).unlink()
    write_summary(tmp_path / "study")
    for name in ("summary.csv", "summary.md", "summary.html"):
        assert (tmp_path / "study" / name).read_bytes() == (sweep / name).read_bytes()


def test_with_many_settings_the_best_are_coloured_and_the_rest_grey(tmp_path):
    """The page names the colored settings, and all settings are in the tables."""
    directory = plant_sweep(tmp_path / "s", {"accum": range(1, 31), "seed": [0, 1]}, lambda v: score(v))
    write_summary(directory)
    text = html(directory)
    assert "the best 6 settings in colour, all others grey" in text
    assert "the best 20 of 30 settings" in text
    assert "24 more, and unfinished runs" in text
    assert "accum=30" in text


def test_seconds_add_up_from_epoch_to_epoch():
    """Seconds are added up over the epochs; an epoch without the metric or the seconds is left out."""
    rows = [{"epoch": 1, "seconds": 2, "m": 5}, {"epoch": 2, "seconds": 3, "m": 6}, {"epoch": 3, "m": 7}]
    assert make_curve(rows, "seconds", "m") == ([2, 5], [5, 6])
    assert make_curve(rows, "epoch", "m") == ([1, 2, 3], [5, 6, 7])


def test_values_over_magnitudes_are_drawn_on_a_logarithmic_scale(tmp_path):
    """The numbers on the axis are written out, not shown as the source of a formula."""
    facts = {"metrics": lambda v: {"val": {"loss": 10.0 ** int(v["model"])}, "test": {"loss": 1.0}}}
    directory = plant_sweep(
        tmp_path / "s", {"model": range(5)}, lambda v: 0.5, monitor="loss", direction="min", **facts
    )
    for model in range(5):
        log = f"epoch,val_loss,seconds\n1,{10.0**model},1\n2,{10.0**model},1\n"
        (directory / f"model-{model}" / "metrics.csv").write_text(log)
    write_summary(directory)
    assert "mathdefault" not in html(directory)
    assert ">1000</text>" in html(directory)
