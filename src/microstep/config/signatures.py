"""Parameters of a constructor, read from its source: importing it would import torch."""

import ast
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from microstep.config.targets import current

SCALAR_TYPES = frozenset({"bool", "int", "float", "str", "None"})
CONTAINER_TYPES = frozenset(
    {"list", "tuple", "dict", "set", "frozenset", "sequence", "iterable", "collection", "mapping", "any", "callable"}
)  #: in lower case, so that typing's names match too


@dataclass(frozen=True)
class Signature:
    """The parameters of a constructor."""

    parameters: dict[str, frozenset[str]]  #: name → scalar types of the annotation; empty if anything is accepted
    optional: frozenset[str]  #: parameters with a default
    accepts_any_keyword: bool  #: it has **kwargs
    nullable: frozenset[str]  #: parameters whose default is None


@cache
def find_signature(target: str) -> Signature | None:
    """Return the signature of a dotted target, or None if its source can't be read."""
    definition = find_definition(current(target))
    if isinstance(definition, ast.ClassDef):
        found = next((n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if found is None and not definition.bases and not definition.decorator_list:
            return Signature({}, frozenset(), False, frozenset())
        definition = found
    return read_signature(definition) if isinstance(definition, ast.FunctionDef) else None


def read_signature(function: ast.FunctionDef) -> Signature:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    types = {a.arg: annotated_scalars(a.annotation) for a in arguments if a.arg != "self"}
    defaults = parameter_defaults(function.args)
    nullable = frozenset(k for k, value in defaults.items() if isinstance(value, ast.Constant) and value.value is None)
    return Signature(types, frozenset(defaults), function.args.kwarg is not None, nullable)


def parameter_defaults(arguments: ast.arguments) -> dict[str, ast.expr]:
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    pairs = zip([*with_default, *arguments.kwonlyargs], [*arguments.defaults, *arguments.kw_defaults], strict=True)
    return {argument.arg: default for argument, default in pairs if default is not None}


def annotated_scalars(annotation: ast.expr | None) -> frozenset[str]:
    """Return the scalar types that an annotation names; none if it also admits containers."""
    if annotation is None:
        return frozenset()
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    names = {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(annotation) if isinstance(n, ast.Attribute)}
    constants = {str(n.value) for n in ast.walk(annotation) if isinstance(n, ast.Constant)}
    if {name.lower() for name in names} & CONTAINER_TYPES or not names & SCALAR_TYPES:
        return frozenset()
    optional = {"None"} if "Optional" in names else set()
    return frozenset(((names | constants) & SCALAR_TYPES) | optional)


def find_definition(target: str, hops: int = 4) -> ast.stmt | None:
    """Return the definition of a dotted name. At most `hops` statements `from … import …` are followed."""
    module, _, name = target.rpartition(".")
    source = find_source(module)
    if source is None or not hops:
        return None
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find_definition(f"{resolve_import(node, module, source)}.{alias.name}", hops - 1)
    return None


def resolve_import(node: ast.ImportFrom, module: str, source: Path) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if source.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def find_source(module: str) -> Path | None:
    """Return the file of a module without importing the module or its parents."""
    path: list[str] | None = None
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, path)  # a dotted name without __init__.py would need its imported parent
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
