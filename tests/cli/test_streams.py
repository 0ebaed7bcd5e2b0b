"""Stdout and stderr that nobody reads any more, that are full, closed, or know fewer characters."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dipp_cli import app
from dipp_cli.terminal.output import print_json
from dipp_cli.terminal.streams import Tolerant, tolerant


class Broken(io.TextIOWrapper):
    """A stream that refuses everything."""

    def __init__(self, number: int):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.number, self.tries = number, 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_reader_that_goes_away_is_not_spoken_of(number: int) -> None:
    stream = Tolerant(Broken(number))
    assert stream.write("a line\n") == 7
    print("another", file=stream, flush=True)  # type: ignore[call-overload]
    assert stream.lost is None


def test_a_full_disk_behind_a_stream_is_remembered_and_tried_again() -> None:
    broken = Broken(errno.ENOSPC)
    stream = Tolerant(broken)
    stream.writelines(["a", "b"])
    assert broken.tries == 2 and stream.lost is not None and stream.lost.errno == errno.ENOSPC


def test_other_errors_are_errors() -> None:
    with pytest.raises(TypeError):
        Tolerant(io.StringIO()).write(b"bytes")


def test_closed_streams_take_everything_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with tolerant():
        print("to nobody", flush=True)
    assert sys.stdout is None


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "?"), ("latin-1", "?"), ("utf-8", "━")])
def test_characters_that_a_console_does_not_know_are_replaced(encoding: str, expected: str) -> None:
    raw = io.BytesIO()
    stream = Tolerant(io.TextIOWrapper(raw, encoding=encoding))
    stream.write("━")
    stream.flush()
    assert raw.getvalue().decode(encoding) == expected


@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
@pytest.mark.parametrize(("encoding", "expected"), [("ascii", "-0.5 x"), ("latin-1", "-0.5 ×"), ("utf-8", "−0.5 ×")])
def test_a_minus_sign_is_one_on_every_console(encoding: str, expected: str, errors: str) -> None:
    raw = io.BytesIO()
    stream = Tolerant(io.TextIOWrapper(raw, encoding=encoding, errors=errors))
    stream.write("−0.5\N{NO-BREAK SPACE}×")
    stream.flush()
    assert raw.getvalue().decode(encoding).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_holds_every_character_on_every_console(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    value = {"prompt": "größer 🦊 — ok", "list": [1, 2.5, None]}
    print_json(value)
    assert json.loads(raw.getvalue().decode(encoding)) == value
    assert "🦊" in raw.getvalue().decode(encoding) or encoding != "utf-8"


@pytest.mark.parametrize(("command", "code"), [("train", 0), ("bench", 0), ("score", 1), ("plan", 1)])
def test_work_that_is_in_files_is_done_though_stdout_is_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, code: int
) -> None:
    def run(words: list[str]) -> int:
        print("a table")
        return 0

    monkeypatch.setattr(app, "run_command", run)
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert app.main([command]) == code
    said = capsys.readouterr().err
    assert "Standard output could not be written: No space left on device." in said
    assert ("its files are complete" in said) == (code == 0)


def test_a_command_that_failed_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "run_command", lambda words: (print("half a table"), 2)[1])
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert app.main(["train"]) == 2


def test_a_full_disk_is_a_sentence_in_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/pairs.json")

    monkeypatch.setattr(app, "run_command", run)
    assert app.main(["bench"]) == 1
    assert capsys.readouterr().err == (
        "Error: out/pairs.json: No space left on device. Free some space first. Run the same command again; what is "
        "done is kept.\n"
    )


HELP = [sys.executable, "-m", "dipp_cli", "train", "--help"]


@pytest.mark.parametrize("streams", ["read by nobody", "full", "closed"])
def test_the_program_itself_ends_well(streams: str) -> None:
    """With Python's own emptying of its streams at the end, which has an exit code of its own, 120."""
    given: dict[str, Any] = {"env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}}
    if streams == "closed":
        done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *HELP], check=False, **given)
    elif streams == "full":
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(HELP, stdout=full, stderr=full, check=False, **given)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(HELP, stdout=writer, stderr=writer, check=False, **given)
        os.close(writer)
    assert done.returncode == 0
