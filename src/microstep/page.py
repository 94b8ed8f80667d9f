"""The page that `--help` prints: what to type, and every group, option and key."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from microstep.config import CHOICES, SCHEMAS

RECIPES = ("experiment",)  #: groups that are no key of the schema


def page(introduction: str, conf: Path, config_name: str) -> str:
    """Return the whole page."""
    schema = fields(SCHEMAS[config_name])
    groups = [name for name in (*(f.name for f in schema), *RECIPES) if (conf / name).is_dir()]
    parts = [introduction.strip()]
    if groups:
        parts.append("Groups (GROUP=OPTION; GROUP.KEY=VALUE changes a value inside; +GROUP.KEY=VALUE adds one):")
        parts.append("\n".join(f"  {group:<22}{', '.join(options(conf / group))}" for group in groups))
    parts.append("Keys:")
    parts.append("\n".join(f"  {f.name:<22}{described(f)}" for f in schema if f.name not in groups))
    parts.append("--cfg job shows the experiment as composed, -m runs one job for each combination of a,b,c values.")
    return "\n\n".join(parts)


def options(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.yaml"))


def described(field: Field[Any]) -> str:
    """Return a key's type, range or options, and default."""
    words = CHOICES.get(field.name)
    allowed = f"({', '.join(words)})" if words else field.metadata.get("range", "")
    default = (
        "required" if field.default == "???" else "" if field.default is MISSING else f"default {show(field.default)}"
    )
    return ", ".join(
        part for part in (f"{field.type} {allowed}".strip().replace(" | None", " or null"), default) if part
    )


def show(value: Any) -> str:
    """Return a value as yaml spells it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
