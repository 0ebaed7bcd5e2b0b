"""The tables of docs/reference/plugins.md: plugins that come with the toolkit, and those of others that are known."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dipp_toolkit.registry import KINDS, get_registry

ROOT = Path(__file__).parents[1]
KNOWN = ROOT / "docs" / "reference" / "known-plugins.yaml"
FIELDS = ("distribution", "registers", "summary", "licence", "link")
HEAD = "| plugin | registers | its code |\n|---|---|---|"
KNOWN_HEAD = "| distribution | registers | what it is | licence |\n|---|---|---|---|"


def own_plugins() -> str:
    """A row for each plugin of this repository, as the registry has it; what others installed is left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = []
    for name, module in sorted(project["entry-points"]["dipp"].items()):
        names: dict[str, list[str]] = {}
        for entry in get_registry():
            if entry.plugin == name:
                names.setdefault(entry.kind, []).append(f"`{entry.name}`")
        texts = [f"{kind}: {', '.join(names[kind])}" for kind in KINDS if kind in names]
        rows.append(f"| `{name}` | {'<br>'.join(texts)} | [`{module}`]({_place(module)}) |")
    return "\n".join([HEAD, *rows])


def _place(module: str) -> str:
    """The link from the page to a module's file or folder."""
    start = "" if module.startswith("dipp_toolkit.") else "plugins/"
    path = ROOT / start / module.replace(".", "/")
    place = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return f"../../{place.relative_to(ROOT).as_posix()}"


def known_plugins(path: Path = KNOWN) -> str:
    """A row for each plugin of the list.

    Args:
        path: of the list.

    Raises:
        SystemExit: a row of the list is wrong; the sentence says which and how.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    problems = problems_of(rows)
    if problems:
        raise SystemExit("\n".join(f"{path.name}: {problem}" for problem in problems))
    if not rows:
        return "None has been sent in yet."
    return "\n".join([KNOWN_HEAD, *map(_known, sorted(rows, key=lambda row: str(row["distribution"])))])


def _known(row: Mapping[str, Any]) -> str:
    name = f"[{row['distribution']}]({row['link']})"
    return f"| {' | '.join([name, ', '.join(row['registers']), row['summary'], row['licence']])} |"


def problems_of(rows: Any) -> list[str]:
    """What is wrong with the rows of a list, a sentence each."""
    if not isinstance(rows, list):
        return ["It is no list of plugins."]
    return [f"Row {number}: {problem}" for number, row in enumerate(rows, 1) for problem in _problems(row)]


def _problems(row: Any) -> Sequence[str]:
    if not isinstance(row, Mapping) or set(row) != set(FIELDS):
        return [f"It has other fields than {', '.join(FIELDS)}."]
    texts = [row[name] for name in FIELDS if name != "registers"]
    if not all(isinstance(text, str) and text.strip() and not set(text) & set("|\n<>[]") for text in texts):
        return ["A field is empty or no text of one line without | < > [ ]."]
    found = []
    if not row["link"].startswith("https://") or set(row["link"]) & set(" ()"):
        found.append(f"The link '{row['link']}' is no https:// address.")
    if not isinstance(row["registers"], list) or not row["registers"] or not set(row["registers"]) <= set(KINDS):
        found.append(f"`registers` is no list of kinds; expected some of {', '.join(KINDS)}.")
    return found
