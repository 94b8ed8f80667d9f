"""The health report lists problems in readable lines; long lists are truncated."""

from __future__ import annotations

from microstep.dataset_report.health import DuplicateGroup, HealthReport, ImageProblem, ImageReference
from microstep.dataset_report.text import MAX_LISTED_LINES, format_health


def health(**found) -> HealthReport:
    """Return a report on training images with the given problems only."""
    well = {"unreadable": [], "duplicates": [], "constant_images": [], "small_classes": {}, "absent_classes": {}}
    return HealthReport(**({"checked": {"train": (100, 100)}} | well | found))


def member(name: str, split: str = "train", label: str = "cat") -> ImageReference:
    return ImageReference(split, name, label)


def test_long_lists_are_cut():
    """Ten items are listed and the rest is counted; a list of ten is complete."""
    files = [ImageProblem("train", f"{place}.jpg", "cat", "why") for place in range(MAX_LISTED_LINES + 1234)]
    text = format_health(health(unreadable=files), ["train"])
    assert text.count(".jpg: why\n") == MAX_LISTED_LINES
    assert "\n    unreadable: 1,244\n" in text
    assert "\n      … and 1,234 more, all in the JSON\n" in text
    assert "more" not in format_health(health(unreadable=files[:MAX_LISTED_LINES]), ["train"])


def test_a_large_group_is_one_short_line():
    """Ten of a thousand equal images are named."""
    group = DuplicateGroup([member(f"{place}.jpg") for place in range(1000)])
    (line,) = (line for line in format_health(health(duplicates=[group]), ["train"]).splitlines() if ".jpg" in line)
    assert line.startswith("      train: 0.jpg = train: 1.jpg = ")
    assert line.endswith("train: 9.jpg = 990 more")


def test_leaks_come_first():
    """Leaks, which spoil results, are listed before other duplicates."""
    inside = [DuplicateGroup([member(f"{place}a.jpg"), member(f"{place}b.jpg")]) for place in range(20)]
    leak = DuplicateGroup([member("x.jpg"), member("y.jpg", "test", "dog")])
    text = format_health(health(duplicates=[*inside, leak]), ["train"])
    assert "      train: x.jpg = test: y.jpg (labels differ: cat, dog)\n" in text
    assert text.index("x.jpg") < text.index("0a.jpg")


def test_only_what_is_well_is_called_so():
    """A problem that was found is not listed as passed."""
    text = format_health(health(constant_images=[member("c.jpg")], absent_classes={"train": ["dog"]}), ["train"])
    assert text.splitlines()[-1] == "    no unreadable files, no duplicates"
    assert format_health(health(), ["train"]).count("\n") == 1
