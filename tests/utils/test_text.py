"""Text that a person reads: it fits, it is on one line, and its numbers have their unit."""

from __future__ import annotations

from microstep.utils.text import format_count, format_percent, sample_caption, truncate_middle


def test_a_text_that_is_too_long_loses_its_middle() -> None:
    """Short text is unchanged; longer text keeps both ends; control characters are escaped."""
    assert truncate_middle("train/0001.png", 14) == "train/0001.png"
    assert truncate_middle("train/0001.png", 9) == "trai….png"
    assert truncate_middle("train/0001.png", 8) == "tra…png"
    assert truncate_middle("a\nb\x1b", 20) == "a\\nb\\x1b"


def test_a_sample_is_named_by_its_file_or_its_index() -> None:
    assert sample_caption(None, 12, 9) == ", #12"
    assert sample_caption("train/a.png", 12, 9) == "\na.png"


def test_numbers_have_their_unit() -> None:
    assert [format_count(n, "epoch") for n in (0, 1, 1203)] == ["0 epochs", "1 epoch", "1,203 epochs"]
    assert [format_percent(ratio) for ratio in (0.00049, 0.5, 1.23456)] == ["0.0 %", "50.0 %", "123.5 %"]
