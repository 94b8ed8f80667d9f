"""Text of `--help`: every key, group and option of a program, in sections."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from microstep.config.choices import CHOICES
from microstep.config.ranges import RANGES
from microstep.config.schema import OUTPUT, RECIPES, SCHEMAS, SECTIONS, SWEEP

WIDTH = 80  #: columns
MARGIN = 24  #: column in which descriptions begin
GRAMMAR = """\
KEY=VALUE sets a key and GROUP=OPTION chooses an option; GROUP.KEY=VALUE changes
a value of the option, +GROUP.KEY=VALUE adds one. --cfg job prints all values."""


@dataclass(frozen=True)
class Entry:
    """A key or a group in `--help`."""

    name: str
    section: str
    about: str
    detail: str = ""  #: type, range and default


JSON = Entry("--json", OUTPUT, "print the result as one JSON object, and nothing else to stdout")
#: Flags and Hydra's own settings, by program.
HYDRA = {
    "evaluate": (JSON,),
    "compute_stats": (JSON,),
    "train": (
        Entry("--json", OUTPUT, "with check=: print the result as one JSON object, and nothing else to stdout"),
        Entry("experiment", RECIPES, "whole experiment: sets groups and keys at once", "default null"),
        Entry("-m", SWEEP, "run each combination of values: -m accum=1,2 seed=0,1"),
        Entry("dataset.repeats", SWEEP, "of folds: -m dataset.folds=5 dataset.fold=0,1,2,3,4 dataset.repeats=3"),
        Entry("hydra/launcher", SWEEP, "how runs are started", "default: one after the other, in one process"),
        Entry("hydra.run.dir", OUTPUT, "run directory", "default: outputs/<date>/<time>_<dataset>_<model>_…"),
    ),
}


def help_text(introduction: str, conf: Path, config_name: str) -> str:
    """Return the introduction with all sections after it, for the root yaml `config_name` in `conf`."""
    parts = [introduction.strip()]
    entries = [*HYDRA.get(config_name, ()), *schema_entries(config_name, conf)]
    for name in SECTIONS:
        rows = [row for entry in entries if entry.section == name for row in entry_rows(entry, conf)]
        parts += ["\n".join([f"{name}:", *rows])] if rows else []
    return "\n\n".join([*parts, GRAMMAR])


def entry_rows(entry: Entry, conf: Path) -> Iterator[str]:
    yield format_row(f"  {entry.name}", f"{entry.about} [{entry.detail}]" if entry.detail else entry.about)
    for file in sorted((conf / entry.name).glob("*.yaml")) if entry.detail else ():  # a group's default
        yield format_row(f"    {file.stem}", comment(file))


def comment(file: Path) -> str:
    """Return the comment on the first line of an option's yaml, after `# @package`."""
    lines = file.read_text("utf-8").splitlines()
    return next((line.partition("# ")[2] for line in lines if not line.startswith("# @")), "")


def format_row(name: str, about: str) -> str:
    """Return a name with its wrapped description, which begins on the next line after a long name."""
    lines = [" " * MARGIN + line for line in wrap(about, WIDTH - MARGIN)]
    if len(name) + 2 > MARGIN or not lines:
        return "\n".join([name, *lines])
    return "\n".join([name.ljust(MARGIN) + lines[0].lstrip(), *lines[1:]])


def schema_entries(config_name: str, conf: Path) -> Iterator[Entry]:
    """Yield the entries of the schema: groups first, then keys. A node's keys follow it by their dotted names."""
    root = OmegaConf.load(conf / f"{config_name}.yaml")
    options = {str(k): v for one in root.defaults if isinstance(one, DictConfig) for k, v in one.items()}
    hints = get_type_hints(SCHEMAS[config_name])
    for field in sorted(fields(SCHEMAS[config_name]), key=lambda field: field.name not in options):
        detail = f"default {options[field.name]}" if field.name in options else describe_field(field)
        yield make_entry(field, "", detail)
        for node in filter(is_dataclass, (field.default_factory, *get_args(hints[field.name]))):
            prefix = f"{field.name}."
            yield from (make_entry(inner, prefix, describe_field(inner, prefix)) for inner in fields(node))


def make_entry(field: Field[Any], prefix: str, detail: str) -> Entry:
    return Entry(f"{prefix}{field.name}", field.metadata["section"], field.metadata["help"], detail)


def describe_field(field: Field[Any], prefix: str = "") -> str:
    if field.default is MISSING:
        return field.type if isinstance(field.type, str) and "[" in field.type else ""
    name = f"{prefix}{field.name}"
    choices = CHOICES.get(name)
    allowed = f"({', '.join(choices)})" if choices else field.metadata.get("range", RANGES.get(name, ""))
    default = "required" if field.default == "???" else f"default {format_yaml_value(field.default)}"
    return f"{f'{field.type} {allowed}'.strip().replace(' | None', ' or null').replace('Any', 'list')}, {default}"


def format_yaml_value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
