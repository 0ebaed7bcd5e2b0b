"""What `dipp plugins show` does: what a registration, a class's own words and its distribution say, as lines."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from importlib.metadata import Distribution
from typing import Any, get_type_hints

from dipp_toolkit.errors import DippError
from dipp_toolkit.registry import Entry, Registry, get_registry
from dipp_toolkit.utils.messages import quoted
from dipp_toolkit.utils.option_types import annotations_of, words_of
from dipp_toolkit.utils.packages import TOOLKIT

from ...terminal.output import print_json, print_line
from .listing import rank
from .selection import Selection, origin_of, select

PAGES = {
    "reward": "docs/reference/rewards.md",
    "metric": "docs/reference/metrics.md",
    "term": "docs/reference/objectives.md",
    "prompts": "docs/reference/prompt-sets.md",
    "recipe": "docs/reference/recipes.md",
    "environment": "docs/operations/rewards-elsewhere.md",
    "pipeline": "docs/guide/writing-a-plugin.md",
    **dict.fromkeys(("generator", "reference", "blueprint"), "docs/guide/real-models.md"),
    "plugin": "docs/reference/plugins.md",
}
"""Where the toolkit's documentation speaks of its own, by kind."""
SITES = ("documentation", "homepage", "repository", "source")
"""What the addresses of a distribution are called, the one to show first."""
REQUIRED = "required"


def show_named(name: str, as_json: bool) -> None:
    """Print what is known of everything that has this name, or as a JSON object.

    Raises:
        RequestError: nothing has it.
    """
    registry = get_registry()
    selection = select(registry, name)
    own = sorted((entry for entry in selection.entries if entry.name == name), key=lambda entry: rank(entry.kind))
    entries = [describe_entry(entry) for entry in own]
    plugins = [describe_plugin(registry, selection, plugin) for plugin in selection.plugins]
    if as_json:
        print_json({"name": name, "entries": entries, "plugins": plugins})
        return
    for number, row in enumerate([*entries, *plugins]):
        if number:
            print_line("")
        for line in _lines(row):
            print_line(line)


def describe_entry(entry: Entry) -> dict[str, Any]:
    """What is known of a registered thing. It is imported for its options, and not made.

    Returns:
        `kind`, `name`, `summary`, `about` (the first paragraph of its docstring), `plugin`, `distribution`, `version`,
        `file`, `needs`, `missing`, `install`, `licence`, `weights`, `options`, a list of `{"name", "takes", "default",
        "about"}`, `defaults` (settings that it recommends), `docs`, and `problem`: why it could not be imported.
    """
    _, distribution = origin_of(entry.plugin)
    origin = entry.origin
    options: list[dict[str, Any]] = []
    about = problem = ""
    try:
        factory = entry.attribute
        options, about = list(_options(entry.kind, factory)), _about(entry, factory)
    except DippError as error:
        problem = str(error)
    return {
        "kind": entry.kind, "name": entry.name, "summary": entry.summary, "about": about, "plugin": entry.plugin,
        **_distribution(distribution), "file": _file(entry), "needs": list(entry.needs), "missing": entry.missing,
        "install": entry.how_to_install, "licence": "" if origin is None else origin.licence.text,
        "weights": "" if origin is None else origin.page, "options": options,
        "defaults": dict(entry.defaults), "docs": _docs(entry.kind, distribution), "problem": problem,
    }  # fmt: skip


def describe_plugin(registry: Registry, selection: Selection, name: str) -> dict[str, Any]:
    """What is known of a plugin.

    Returns:
        `kind` (`"plugin"`), `name`, `distribution`, `version`, `file`, `registers`, names by kind, `docs`, and
        `problem`: why it is broken.
    """
    module, distribution = origin_of(name)
    registers: dict[str, list[str]] = {}
    for entry in selection.entries:
        if entry.plugin == name:
            registers.setdefault(entry.kind, []).append(entry.name)
    loaded = registry.manager.get_plugin(name)
    return {
        "kind": "plugin", "name": name, **_distribution(distribution),
        "file": getattr(loaded, "__file__", None) or _module_file(module.partition(":")[0]),
        "registers": registers, "docs": _docs("plugin", distribution),
        "problem": next((broken.reason for broken in selection.broken), ""),
    }  # fmt: skip


def _distribution(found: Distribution | None) -> dict[str, str]:
    return {"distribution": "" if found is None else found.name, "version": "" if found is None else found.version}


def _docs(kind: str, found: Distribution | None) -> str:
    """A page of the toolkit's documentation for its own, the address that its distribution names for others."""
    if found is None:
        return ""
    if found.name == TOOLKIT:
        return PAGES[kind]
    lines = (line.partition(",") for line in found.metadata.get_all("Project-URL") or [])
    sites = {label.strip().lower(): address.strip() for label, _, address in lines}
    return next((sites[site] for site in SITES if site in sites), next(iter(sites.values()), ""))


def _file(entry: Entry) -> str:
    """The source file of a factory, found without importing it where the registration names its module."""
    if isinstance(entry.factory, str):
        return _module_file(entry.factory.partition(":")[0])
    made: Any = entry.factory
    while hasattr(made, "func"):  # of a functools.partial
        made = made.func
    if inspect.isclass(made) or inspect.isroutine(made):
        return getattr(inspect.getmodule(made), "__file__", None) or ""
    return _module_file(origin_of(entry.plugin)[0].partition(":")[0])  # a record's class is the toolkit's


def _module_file(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module) if module else None
    except Exception:  # noqa: BLE001 -- a package above it is somebody's code, which may raise anything
        return ""
    return (spec.origin if spec is not None else None) or ""


def _about(entry: Entry, factory: Any) -> str:
    """The first paragraph of a class's or function's own docstring, on one line."""
    described = entry.description if entry.described is not None else factory
    if entry.kind == "term":
        from dipp_toolkit.utils.imports import made_by

        described = made_by(factory) or factory
    while hasattr(described, "func"):
        described = described.func
    if not (inspect.isclass(described) or inspect.isroutine(described)):
        return ""
    owner = getattr(described, "__self__", None)
    text = (owner.__doc__ if inspect.isclass(owner) else described.__doc__) or ""
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())


def _options(kind: str, factory: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """The options that `--set` gives a thing of this kind."""
    if kind == "term":
        yield from _term_options(factory)
        return
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of what has none, such as a class written in C
        return
    annotations = annotations_of(factory)
    for each in parameters:
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            default = REQUIRED if each.default is each.empty else quoted(each.default)
            yield _option(each.name, annotations.get(each.name), default)
        elif each.kind is each.VAR_KEYWORD:
            yield _option("...", None, "", "others, which it hands on")


def _term_options(factory: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """Those of the dataclass that a term's factory makes, as far as it says which."""
    from dipp_toolkit.objective.terms.options import options_of
    from dipp_toolkit.utils.imports import made_by

    made = made_by(factory)
    if not (inspect.isclass(made) and is_dataclass(made)):
        return
    hints = get_type_hints(made, include_extras=True)
    for name, about in options_of(made).items():
        yield _option(name, hints.get(name), quoted(made.__dataclass_fields__[name].default), about)


def _option(name: str, annotation: Any, default: str, about: str = "") -> dict[str, Any]:
    return {"name": name, "takes": words_of(annotation) if annotation is not None else "", "default": default,
            "about": about}  # fmt: skip


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    """A row for a person; what nobody says is left out, but for the licence, of which it matters."""
    yield f"{row['kind']} {row['name']}" + (f": {row['summary']}" if row.get("summary") else "")
    from_ = f"{row['distribution']} {row['version']}".strip()
    plugin = f"{row['plugin']}, " if "plugin" in row else ""
    lines = {
        "about": row.get("about", ""),
        "plugin": f"{plugin}of {from_}" if from_ else plugin.removesuffix(", ") or "of no distribution that is known",
        "file": row["file"],
        "needs": ", ".join(row.get("needs", ())),
        "missing": f"{', '.join(row['missing'])}; {row['install']}" if row.get("missing") else "",
        "weights": row.get("weights", ""),
        "licence": row.get("licence", ""),
        "docs": row["docs"],
        "problem": row["problem"],
    }
    for label, text in lines.items():
        if text:
            yield f"  {label:<13}{text}"
    for kind, names in row.get("registers", {}).items():
        yield f"  {kind:<13}{', '.join(names)}"
    for label, texts in (("options", map(_option_line, row.get("options", ()))), ("defaults", _settings(row))):
        for number, text in enumerate(texts):
            yield f"  {label if number == 0 else '':<13}{text}"


def _option_line(option: Mapping[str, Any]) -> str:
    default = option["default"]
    if default not in ("", REQUIRED):
        default = f"{default} by default"
    return f"{option['name']}: {', '.join(filter(None, [option['takes'], default, option['about']]))}"


def _settings(row: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in row.get("defaults", {}).items()]
