"""The list of other people's plugins: a row is shown, and a wrong one is refused with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_tables import KNOWN, KNOWN_HEAD, known_plugins, own_plugins, problems_of

from dipp_toolkit.registry import get_registry

EXAMPLE = "\n".join(line.removeprefix("# ") for line in KNOWN.read_text(encoding="utf-8").splitlines()[2:7])


def test_the_row_that_the_list_shows_is_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    shown = "| [dipp-warmth](https://pypi.org/project/dipp-warmth) | reward | warm colours | MIT |"
    assert known_plugins(path) == f"{KNOWN_HEAD}\n{shown}"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"registers": []}, "Row 1: `registers` is no list of kinds"),
        ({"registers": ["rewards"]}, "Row 1: `registers` is no list of kinds"),
        ({"link": "http://example.org"}, "is no https:// address."),
        ({"link": "https://example.org) [x](https://other.example"}, "Row 1: A field is empty or no text"),
        ({"summary": "a | b"}, "Row 1: A field is empty or no text"),
        ({"licence": ""}, "Row 1: A field is empty or no text"),
        ({"stars": 5}, "Row 1: It has other fields than distribution, registers,"),
    ],
)
def test_a_wrong_row_is_refused(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    rows = [yaml.safe_load(EXAMPLE)[0] | change]
    assert [text for text in problems_of(rows) if problem in text]
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(rows), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"known\.yaml: Row 1"):
        known_plugins(tmp_path / "known.yaml")


def test_every_own_plugin_has_a_row_with_its_code() -> None:
    table = own_plugins()
    assert all(f"| `{plugin}` |" in table for plugin in {entry.plugin for entry in get_registry()})
