"""The health report names what is wrong in lines that can be read, and leaves the rest of long lists to the JSON."""

from __future__ import annotations

from microstep.dataset_report.health import Duplicates, Health, Member, Unreadable
from microstep.dataset_report.text import LISTED, health_text


def health(**found) -> Health:
    """Return a report on training pictures with nothing wrong but what is given."""
    well = {"unreadable": [], "duplicates": [], "constant": [], "few": {}, "absent": {}}
    return Health(**({"checked": {"train": (100, 100)}} | well | found))


def member(name: str, split: str = "train", label: str = "cat") -> Member:
    return Member(split, name, label)


def test_long_lists_are_cut():
    """Ten are listed, the rest is counted; a list of just ten is whole."""
    files = [Unreadable("train", f"{place}.jpg", "cat", "why") for place in range(LISTED + 1234)]
    text = health_text(health(unreadable=files), ["train"])
    assert text.count(".jpg: why\n") == LISTED
    assert "\n    unreadable: 1,244\n" in text
    assert "\n      … and 1,234 more, all in the JSON\n" in text
    assert "more" not in health_text(health(unreadable=files[:LISTED]), ["train"])


def test_a_large_group_is_one_short_line():
    """Of a thousand equal pictures ten are named."""
    group = Duplicates([member(f"{place}.jpg") for place in range(1000)])
    (line,) = (line for line in health_text(health(duplicates=[group]), ["train"]).splitlines() if ".jpg" in line)
    assert line.startswith("      train: 0.jpg = train: 1.jpg = ")
    assert line.endswith("train: 9.jpg = 990 more")


def test_leaks_come_first():
    """What spoils a result is not cut off behind what doesn't."""
    inside = [Duplicates([member(f"{place}a.jpg"), member(f"{place}b.jpg")]) for place in range(20)]
    leak = Duplicates([member("x.jpg"), member("y.jpg", "test", "dog")])
    text = health_text(health(duplicates=[*inside, leak]), ["train"])
    assert "      train: x.jpg = test: y.jpg (labels differ: cat, dog)\n" in text
    assert text.index("x.jpg") < text.index("0a.jpg")


def test_only_what_is_well_is_called_so():
    """No line says both that something was found and that there is none."""
    text = health_text(health(constant=[member("c.jpg")], absent={"train": ["dog"]}), ["train"])
    assert text.splitlines()[-1] == "    no unreadable files, no duplicates"
    assert health_text(health(), ["train"]).count("\n") == 1
