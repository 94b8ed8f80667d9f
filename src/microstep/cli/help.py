"""Text of `--help`: every key of a program, every group and every option, in sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from omegaconf import DictConfig, OmegaConf

from microstep.config.ranges import RANGES
from microstep.config.schema import CHOICES, OUTPUT, RECIPES, SCHEMAS, SECTIONS, SWEEP

WIDTH = 80  #: columns
MARGIN = 24  #: column in which descriptions begin
GRAMMAR = """\
KEY=VALUE sets a key and GROUP=OPTION chooses an option; GROUP.KEY=VALUE changes
a value of the option, +GROUP.KEY=VALUE adds one. --cfg job prints all values."""


@dataclass(frozen=True)
class Entry:
    """A key or a group."""

    name: str
    section: str
    about: str
    detail: str = ""  #: type, range and default


#: Settings of Hydra that are no keys of the schema, by program.
HYDRA = {
    "train": (
        Entry("experiment", RECIPES, "whole experiment: sets groups and keys at once", "default null"),
        Entry("-m", SWEEP, "run each combination of values: -m accum=1,2 seed=0,1"),
        Entry("hydra/launcher", SWEEP, "how runs are started", "default: one after the other, in one process"),
        Entry("hydra.run.dir", OUTPUT, "run directory", "default: outputs/<date>/<time>_<dataset>_<model>_…"),
    )
}


def help_text(introduction: str, conf: Path, config_name: str) -> str:
    """Return the whole text.

    Args:
        introduction: text before the sections.
        conf: directory of the yamls.
        config_name: name of the program's root yaml.
    """
    entries = [*HYDRA.get(config_name, ()), *entries_of(config_name, conf)]
    parts = [section_text(name, [entry for entry in entries if entry.section == name], conf) for name in SECTIONS]
    return "\n\n".join([introduction.strip(), *filter(None, parts), GRAMMAR])


def section_text(name: str, entries: Sequence[Entry], conf: Path) -> str:
    """Return a section's text; an empty one for a section without entries."""
    rows = [row for entry in entries for row in entry_rows(entry, conf)]
    return "\n".join([f"{name}:", *rows]) if rows else ""


def entry_rows(entry: Entry, conf: Path) -> Iterator[str]:
    """Yield the row of a key or a group, and that of each option of the group."""
    yield row(f"  {entry.name}", f"{entry.about} [{entry.detail}]" if entry.detail else entry.about)
    for file in sorted((conf / entry.name).glob("*.yaml")):
        yield row(f"    {file.stem}", comment(file))


def comment(file: Path) -> str:
    """Return the description of an option: the comment on the first line of its yaml, after `# @package`."""
    lines = file.read_text("utf-8").splitlines()
    return next((line.partition("# ")[2] for line in lines if not line.startswith("# @")), "")


def row(name: str, about: str) -> str:
    """Return a name with its description, which is wrapped and begins on a line of its own after a long name."""
    lines = [" " * MARGIN + line for line in wrap(about, WIDTH - MARGIN)]
    if len(name) + 2 > MARGIN or not lines:
        return "\n".join([name, *lines])
    return "\n".join([name.ljust(MARGIN) + lines[0].lstrip(), *lines[1:]])


def entries_of(config_name: str, conf: Path) -> Iterator[Entry]:
    """Yield what the schema has: groups first, then keys; a node's own keys follow it by their dotted names."""
    root = OmegaConf.load(conf / f"{config_name}.yaml")
    chosen = {str(k): v for one in root.defaults if isinstance(one, DictConfig) for k, v in one.items()}
    for field in sorted(fields(SCHEMAS[config_name]), key=lambda field: field.name not in chosen):
        detail = f"default {chosen[field.name]}" if field.name in chosen else describe_field(field)
        yield entry_of(field, "", detail)
        if is_dataclass(node := field.default_factory):
            yield from (
                entry_of(each, f"{field.name}.", describe_field(each, f"{field.name}.")) for each in fields(node)
            )


def entry_of(field: Field[Any], prefix: str, detail: str) -> Entry:
    return Entry(f"{prefix}{field.name}", field.metadata["section"], field.metadata["help"], detail)


def describe_field(field: Field[Any], prefix: str = "") -> str:
    """Return a key's type, range or options, and default."""
    if field.default is MISSING:
        return field.type if isinstance(field.type, str) and "[" in field.type else ""
    words = CHOICES.get(f"{prefix}{field.name}")
    allowed = f"({', '.join(words)})" if words else field.metadata.get("range", RANGES.get(f"{prefix}{field.name}", ""))
    default = "required" if field.default == "???" else f"default {format_yaml_value(field.default)}"
    return f"{f'{field.type} {allowed}'.strip().replace(' | None', ' or null')}, {default}"


def format_yaml_value(value: Any) -> str:
    """Return a value as yaml spells it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
