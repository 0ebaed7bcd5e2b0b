"""`dipp plugins`: what the words leave over, and that the tables fit the terminal."""

from __future__ import annotations

import io
import json
import re

import pytest

from dipp_cli.actions.plugins.listing import describe, listing
from dipp_cli.app import main
from dipp_cli.terminal.tables import PlainConsole
from dipp_toolkit.registry import KINDS, Entry, Registry, get_registry

WIDTHS = (120, 80, 60)


def drawn(kinds: dict, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tables as a terminal of this width shows them."""
    screen = io.StringIO()
    console = PlainConsole(file=screen, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr("dipp_cli.terminal.tables.console", lambda: console)
    describe(kinds)
    return re.sub("\x1b\\[[0-9;]*m", "", screen.getvalue())


@pytest.mark.parametrize("width", WIDTHS)
def test_every_word_is_whole_in_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drawn(listing(get_registry(), []), width, monkeypatch)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    words = set(shown.replace("│", " ").split())
    for entry in get_registry():
        for word in (entry.name, entry.plugin, *entry.summary.split(), *entry.missing):
            assert word in words


@pytest.mark.parametrize("width", [60, 30])
def test_what_is_wider_than_the_terminal_is_folded_and_not_cut(
    registry: Registry, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, summary = "a-name-of-many-letters-" * 4, "nobreaks" * 12
    registry.entries["reward"][name] = Entry(
        "reward", name, len, f"{summary} [red]x[/red]", ("no_such_package",), "mine"
    )
    shown = drawn(listing(registry, []), width, monkeypatch)
    assert max(map(len, shown.splitlines())) <= width
    cells = [[cell.strip() for cell in line.split("│")[1:3]] for line in shown.splitlines() if line.startswith("│")]
    names, summaries = ("".join(cell) for cell in zip(*cells, strict=True))
    assert names == name
    assert summary in summaries
    assert "missing: no_such_package" in summaries.replace("missing:no", "missing: no")
    assert "[red]x[/red]" in summaries


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_by_its_singular_and_its_plural(kind: str) -> None:
    everything = listing(get_registry(), [])
    for word in {kind, f"{kind.removesuffix('s')}s", kind.upper()}:
        assert listing(get_registry(), [word]) == {item: everything[item] if item == kind else [] for item in KINDS}


def test_words_narrow_each_other_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "rewards", "emoji", "JUDGE", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {*KINDS, "broken"}
    assert [row["name"] for row in found["reward"]] == ["emoji-judge"]
    assert not any(found[kind] for kind in KINDS if kind != "reward")
    assert main(["plugins", "rewards", "terms", "kl"]) == 0
    shown = capsys.readouterr().out
    assert "integral_kl" in shown
    assert "reward_only" not in shown


def test_all_of_it_is_unchanged_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [*KINDS, "broken"]
    for kind in KINDS:
        assert [row["name"] for row in found[kind]] == list(get_registry().entries[kind])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rwards"], "Nothing is installed that matches 'rwards'. Did you mean 'rewards'?"),
        (["emoji-clpi"], "Did you mean 'emoji-clip'?"),
        (["rewards", "qqqq"], "Nothing is installed that matches 'rewards qqqq'. The kinds are: pipeline,"),
    ],
)
def test_nothing_left_is_a_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", *words]) == 2
    assert sentence in capsys.readouterr().err
