"""Rows of `dipp accept` that strangers send in: what is wrong with one is said, and nothing of it is run or shown."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipp_cli.app import main
from dipp_toolkit.experiments.acceptance.check import names
from dipp_toolkit.experiments.acceptance.row import read_row, settings_digest
from dipp_toolkit.experiments.acceptance.sound import check_rows, row_problems

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
WINDOWS = {"a": "C:\\Users\\jane"}
SETTINGS = {"steps": 3, "rewards": {"hps": 1.0}}


def sound() -> dict[str, Any]:
    """A row in which nothing is wrong."""
    checks = [
        {
            "check": name, "compared": "one thing", "expected": "another", "measured": "1", "verdict": "pass",
            "why": "", "numbers": {"value": 1.0}, "bounds": {"value": [0.0, 2.0]},
        }
        for name in names()
    ]  # fmt: skip
    return {
        "schema_version": 1, "name": "sdxl-dmd2", "kind": "generator", "reference": "sdxl", "rewards": ["hps"],
        "date": "2026-11-28", "toolkit": {"version": "0.1.0", "commit": "a" * 40, "sources": "b" * 16},
        "machine": {
            "device": "NVIDIA H100", "kind": "cuda", "memory_bytes": 85 * 10**9, "python": "3.11.7", "torch": "2.14.1",
            "diffusers": "0.42.1", "transformers": "5.24.0",
        },
        "weights": [
            {
                "role": "generator", "source": "tianweiy/DMD2", "revision": "c" * 40, "file": "dmd2.bin",
                "sha256": "d" * 64, "bytes": 5,
            }
        ],
        "settings": SETTINGS, "settings_digest": settings_digest(SETTINGS), "scores": {"hps": [0.25] * 8},
        "score_weights": {"hps": "e" * 64}, "checks": checks, "complete": True,
    }  # fmt: skip


def written(row: Any, path: Path) -> Path:
    path.write_text(row if isinstance(row, str) else json.dumps(row), encoding="utf-8")
    return path


def test_a_sound_row_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(sound(), tmp_path / "row.json")
    assert row_problems(read_row(path)) == []
    assert main(["accept", "--check", str(path)]) == 0
    said = capsys.readouterr().out
    assert "sdxl-dmd2 on NVIDIA H100: no check failed." in said and "1 file is sound." in said


def set_at(*where: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Sets an entry of a row."""

    def change(row: dict[str, Any]) -> None:
        place: Any = row
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = to

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown key": (set_at("user", to="jane"), "user: extra inputs are not permitted"),
    "unknown key inside": (set_at("machine", "host", to="lab-7"), "machine.host: extra inputs are not permitted"),
    "digest": (set_at("weights", 0, "sha256", to="d" * 63), "weights.0.sha256"),
    "digest of capitals": (set_at("weights", 0, "sha256", to="D" * 64), "weights.0.sha256"),
    "revision": (set_at("weights", 0, "revision", to="main"), "weights.0.revision"),
    "size": (set_at("weights", 0, "bytes", to=0), "weights.0.bytes"),
    "bool for a number": (set_at("weights", 0, "bytes", to=True), "weights.0.bytes"),
    "text for a number": (set_at("checks", 0, "numbers", "value", to="1"), "checks.0.numbers.value"),
    "date": (set_at("date", to="2026-02-30"), "its date 2026-02-30 is not a date"),
    "schema": (set_at("schema_version", to=2), "schema_version"),
    "verdict": (set_at("checks", 0, "verdict", to="passed"), "checks.0.verdict"),
    "no check": (set_at("checks", to=[]), "checks"),
    "too many files": (set_at("weights", to=[sound()["weights"][0]] * 500), "weights"),
    "a check that is left out": (lambda row: row["checks"].pop(), "it has no row of the check"),
    "an unknown check": (set_at("checks", 0, "check", to="vibes"), "the check does not exist"),
    "a pass out of bounds": (set_at("checks", 0, "numbers", "value", to=3.0), "it says pass, and a number lies"),
    "a fail in bounds": (
        lambda row: row["checks"][0].update(verdict="fail", why="because"), "it says fail, and every number lies"
    ),
    "a fail without a reason": (
        lambda row: row["checks"][0].update(verdict="fail", bounds={}), "it says fail, and not why"
    ),
    "bounds of nothing": (set_at("checks", 0, "numbers", to={}), "it has bounds of value and no such number"),
    "bounds upside down": (set_at("checks", 0, "bounds", "value", to=[2.0, 0.0]), "least is above its most"),
    "bounds of its own": (
        lambda row: row["checks"][names().index("stock")].update(
            numbers={"largest": 0.9}, bounds={"largest": [0.0, 1.0]}
        ),
        "its bound of largest is 1, and the toolkit's 0.25",
    ),
    "a huge number": (set_at("checks", 0, "numbers", "other", to=1e20), "it holds a number beyond"),
    "settings digest": (set_at("settings", "steps", to=4), "its settings_digest is not"),
    "scores": (set_at("scores", "hps", to=[0.25]), "it has 1 scores of hps for 8 images"),
    "scores of nobody": (set_at("score_weights", to={}), "of different rewards"),
    "a home folder": (set_at("checks", 0, "measured", to="/home/jane/x"), "names a place on somebody's machine"),
    "a home folder in settings": (
        lambda row: row.update(settings=WINDOWS, settings_digest=settings_digest(WINDOWS)),
        "its setting names a place on somebody's machine",
    ),
    "a terminal's command": (set_at("name", to="sdxl\x1b[2J"), "its name is not plain text"),
    "a line": (set_at("checks", 0, "why", to="one\ntwo"), "its check has more than one line"),
    "a name that turns round": (set_at("machine", "device", to="H100\u202e"), "its machine is not plain text"),
    "an empty name": (set_at("name", to=" "), "it names no generator or no reference"),
    "a file twice": (lambda row: row["weights"].append(dict(row["weights"][0])), "weight files is listed twice"),
    "fetched nothing": (set_at("weights", to=[]), "it reports fetched files and names none"),
    "deep settings": (
        lambda row: row.update(settings={"a": deep(9)}, settings_digest=settings_digest({"a": deep(9)})),
        "its setting is not plain text",
    ),
}  # fmt: skip


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize("change", HOSTILE)
def test_what_is_wrong_with_a_row_is_said(change: str, tmp_path: Path) -> None:
    row = sound()
    spoil, said = HOSTILE[change]
    spoil(row)
    _, problems = check_rows([written(row, tmp_path / "row.json")])
    assert said in " ".join(problems) and "\x1b" not in " ".join(problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"), ("[1]", "is not a row of an acceptance"),
        ("{" * 5000, "is not"), ("[" * 99_999, "is not"),
        (json.dumps(sound()).replace("1.0}", "NaN}", 1), "which is not a finite number"),
        (json.dumps(sound()).replace("1.0}", "1e999}", 1), "which is not a finite number"),
        (json.dumps(sound()).replace("85000000000", "8" * 5000), "a whole number of 5000 digits"),
        (json.dumps(sound()).replace("sdxl-dmd2", "\\ud800"), "lone surrogate"),
        (" " * 600_000, "expected 500,000 at most"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accept", "--check", str(written(text, tmp_path / "row.json"))]) == 1
    assert said in capsys.readouterr().out


def test_every_file_has_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, twice, bad = (tmp_path / name for name in ("good.json", "twice.json", "bad.json"))
    written(sound(), good)
    written(sound(), twice)
    (bad).write_bytes(b"\xff\xfe\x00")
    assert main(["accept", "--check", str(bad), str(good), str(twice), str(tmp_path / "none.json"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 2 and len(told["problems"]) == 3
    assert "the same row stands in" in " ".join(told["problems"])


def test_the_page_of_accepted_rows_is_current() -> None:
    build = runpy.run_path(str(ROOT / "tools" / "build_accepted.py"))
    page = (RESULTS / "accepted.md").read_text(encoding="utf-8")
    assert page == build["render"](), "run: python tools/build_accepted.py"
    rows, problems = check_rows(build["files"]())
    assert problems == []
    assert rows or "Nothing has been accepted yet" in build["render"]()


def test_the_page_shows_a_row_and_what_failed_in_it(tmp_path: Path) -> None:
    row = sound()
    row["checks"][0].update(verdict="fail", why="because", bounds={}, compared="a | b")
    written(row, tmp_path / "row.json")
    text = runpy.run_path(str(ROOT / "tools" / "build_accepted.py"))["render"]([tmp_path / "row.json"])
    assert "Nothing has been accepted yet" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| `sdxl-dmd2`")]
    assert "NVIDIA H100" in line and "align failed" in line and "2026-11-28" in line
