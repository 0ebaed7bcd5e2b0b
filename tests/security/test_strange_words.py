"""Words of strangers are words: nothing in them commands a terminal, a log, a table, a Markdown or an HTML page."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress
from rich.table import Table
from typer.testing import CliRunner

from dipp_cli.build import build_app
from dipp_cli.terminal import output, tables
from dipp_cli.terminal.output import plain_line, print_json, print_line
from dipp_cli.terminal.work_progress import BenchBars
from dipp_toolkit.errors import RequestError
from dipp_toolkit.events import Warned
from dipp_toolkit.experiments.bench.rows import Row, read_rows, write_rows
from dipp_toolkit.experiments.leaderboard.board import make_board
from dipp_toolkit.experiments.leaderboard.check import check_files, row_problems
from dipp_toolkit.experiments.leaderboard.page import render
from fake_rows import fake_row

CLI = Path(output.__file__).parent
EVIL = "x'): fine.\n1 row is sound.\n::warning file=x::forged\x1b[2J\x07\x9b2J\u202egnp.exe"
MARKUP = "[/x] [bold]loud[/bold] [link=https://evil.example]l[/link] :smile:"


def changed(row: Row, **parts: Any) -> Row:
    """A row with another label, warnings, figures ..."""
    label = parts.pop("label", None)
    if label is not None:
        parts["subject"] = row.subject.model_copy(update={"label": label})
    return row.model_copy(update=parts)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold] words, \u732b and \U0001f468\u200d\U0001f469\u200d\U0001f467", None),
        ("a\nb\tc\x1b[0m\x7f\x9b", r"a\nb\x09c\x1b[0m\x7f\x9b"),
        ("\u202eevil\u2066\u200b\ufeff", r"\u202eevil\u2066\u200b\ufeff"),
        ("half \ud83d and \u2028", r"half \ud83d and \u2028"),
        ("::warning::x", r"\x3a:warning::x"),
        ("  ##[group]x", r"  \x23#[group]x"),
        ("a ::warning::x", None),
    ],
)
def test_a_line_is_a_line_and_no_command(text: str, shown: str | None) -> None:
    stream = io.StringIO()
    print_line(text, file=stream)
    assert stream.getvalue() == f"{text if shown is None else shown}\n"
    assert plain_line(plain_line(text)) == plain_line(text)


def test_json_holds_no_commands_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"label": EVIL + "\x7f\ud83d", "picture": "\U0001f98a", "tag": "\U000e0041"})
    said = capsys.readouterr().out
    assert json.loads(said) == {"label": EVIL + "\x7f\ud83d", "picture": "\U0001f98a", "tag": "\U000e0041"}
    assert not set(said) & set("\x1b\x07\x9b\x7f\u202e\U000e0041") and "\U0001f98a" in said


def test_tables_show_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=MARKUP)
    table.add_column(MARKUP)
    table.add_row(MARKUP + EVIL)
    tables.show(table)
    said = capsys.readouterr().out
    assert said.count(MARKUP) == 3
    assert "\x1b" not in said and "\x9b" not in said and r"\x1b[2J" in said and r"\u202e" in said


def test_bars_show_brackets_as_they_are() -> None:
    console = tables.PlainConsole(file=io.StringIO(), force_terminal=True, width=200)
    from rich.progress import TextColumn

    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        BenchBars(progress).begin(f"images of {MARKUP}\x1b[2J", 1)
        assert progress.tasks[0].description == rf"images of {MARKUP}\x1b[2J"


def test_nothing_in_the_command_line_prints_by_itself() -> None:
    """Whatever is said goes through `print_line`, `print_json` or a `PlainConsole`; what a bar says is made of it."""
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert path.name in ("output.py", "app.py"), f"{path}, line {node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "rich.markup" not in ast.unparse(node)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "[/bold]" not in node.value and "[/green]" not in node.value


def test_a_check_says_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    write_rows(tmp_path / "evil.jsonl", [changed(fake_row("a", 1.0), label=EVIL)])
    done = CliRunner().invoke(build_app(), ["leaderboard", "--check", str(tmp_path / "evil.jsonl")])
    assert done.exit_code == 1 and "not plain text" in done.output
    assert not set(done.output) & set("\x1b\x07\x9b\u202e")
    assert not any(line.lstrip().startswith(("::", "1 row is sound")) for line in done.output.splitlines())


@pytest.mark.parametrize("text", ["a\x1b[2J", "two\nlines", "\u202egnp", "x" * 5000])
def test_a_check_refuses_words_that_are_no_plain_text(text: str) -> None:
    row = fake_row("a", 1.0)
    assert not any("plain text" in problem or "line" in problem for problem in row_problems(row))
    for other in (
        changed(row, label=text),
        changed(row, warnings=(Warned(name=text, text="t"),)),
        changed(row, warnings=(Warned(name="n", text=text),)),
        changed(row, notes=(text,)),
        changed(row, command=text),
        changed(row, environment={text: "x"}),
        changed(row, figures={text: row.figures["liked"]}),
        changed(row, subject=row.subject.model_copy(update={"settings": {"a": text}})),
    ):
        assert any("not plain text" in problem or "more than one line" in problem for problem in row_problems(other))


def test_the_page_has_nothing_of_a_strangers() -> None:
    name = "<img src=x onerror=alert(1)>\"'"
    row = fake_row("a", 1.0)
    evil = changed(
        row,
        label=name,
        warnings=(Warned(name=name, text=name),),
        notes=(name,),
        figures={name: row.figures["liked"], **row.figures},
        environment={name: name},
        command=name,
    )
    page = render(make_board([evil, fake_row("b", 2.0, seed=1)]), name)
    assert "<img src=x" not in page and "&lt;img src=x" in page


HOSTILE = {
    "deep": ("[" * 100_000, "nested too deeply|not valid JSON"),
    "deep inside": ('{"subject": {"settings": {"x": ' + "[" * 5000 + "]" * 5000 + "}}}", "deep|valid JSON|not a row"),
    "half a character": ("HALF", "lone surrogate"),
    "huge": ("HUGE", "expected numbers up to 1e\\+30"),
    "digits": ("DIGITS", "a whole number of 3000 digits; expected 19 at most"),
    "binary": ("\x00", "not valid JSON"),
}  # fmt: skip


@pytest.fixture
def hostile(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path, str]:
    """A sound file, a hostile one, and what is said of it."""
    content, said = request.param
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_rows(good, [fake_row("a", 1.0), fake_row("b", 2.0, seed=1)])
    row = json.loads(good.read_text().splitlines()[0])
    if content == "HALF":
        row["subject"]["label"] = "half \ud83d"
    elif content == "HUGE":
        row["figures"]["liked"]["per_prompt"][0] = 1e308
    elif content == "DIGITS":
        row["protocol"]["seeds"] = [1, 2]
        content = json.dumps(row).replace('"seeds": [1, 2]', f'"seeds": [1, {"9" * 3000}]')
    bad.write_text(json.dumps(row) if content in ("HALF", "HUGE") else content)
    return good, bad, said


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE, indirect=True)
def test_a_hostile_file_is_named_and_the_others_go_on(hostile: tuple[Path, Path, str], tmp_path: Path) -> None:
    good, bad, said = hostile
    with pytest.raises(RequestError, match=said) as caught:
        read_rows(bad)
    assert str(bad) in str(caught.value) and "line 1" in str(caught.value)
    count, problems = check_files([bad, good])
    assert count == 2 and len(problems) == 1 and str(bad) in problems[0]
    out = tmp_path / "l.html"
    done = CliRunner().invoke(build_app(), ["leaderboard", str(bad), str(good), "--out", str(out)])
    assert done.exit_code == 1 and f"Left out: {bad}, line 1" in done.output and out.is_file()
    alone = CliRunner().invoke(build_app(), ["leaderboard", str(bad), "--out", str(tmp_path / "none.html")])
    assert alone.exit_code != 0 and not (tmp_path / "none.html").exists()


@pytest.mark.parametrize("evaluations", [-(10**18), -1, 0, 10**9])
def test_evaluations_are_counts(evaluations: int) -> None:
    row = fake_row("a", 1.0)
    other = changed(row, subject=row.subject.model_copy(update={"evaluations": evaluations}))
    assert any("evaluations an image" in problem for problem in row_problems(other))


def test_numbers_that_swallow_their_digits_are_refused() -> None:
    row = fake_row("a", 1.0)
    values = (1e29,) * row.protocol.count
    figure = row.figures["liked"].model_copy(update={"mean": 1e29, "low": -1e29, "high": 1e29, "per_prompt": values})
    assert any("beyond 1e+12" in problem for problem in row_problems(changed(row, figures={"liked": figure})))
