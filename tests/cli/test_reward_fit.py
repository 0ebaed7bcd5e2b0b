"""`dipp reward fit` says how well the reward agrees, and what to type next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dipp_cli.app import main
from warm_votes import voted_folder

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voted_folder(tmp_path_factory.mktemp("votes") / "votes")


def test_it_fits_votes_of_a_folder(votes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    code = main(["reward", "fit", str(votes), "--backbone", "emoji-clip", "--out", str(out), "--steps", "20"])
    printed = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "Fitted to 12 votes on 6 prompts." in printed
    assert "of 4 votes on 2 prompts held out." in printed
    assert f"Next: dipp train --reward {out}" in printed
    assert (out / "fit.json").is_file()


def test_json_is_one_object_with_the_folder(votes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backbone", "emoji-clip", "--out", str(tmp_path / "mine"), "--steps", "5", "--held-out", "0", "--json"]
    assert main(["reward", "fit", str(votes), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path / "mine")
    assert found["held_out"] is None
    assert found["votes"]["fitted"] == 16
    assert json.loads((tmp_path / "mine" / "fit.json").read_text())["data"] == found["data"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--backbone", "klip"], "There is no backbone 'klip'"),
        (["--backbone", "emoji-clip", "--ensemble", "0"], "--ensemble is 0"),
        (["--backbone", "emoji-clip", "--held-out", "2"], "--held-out is 2"),
    ],
)
def test_wrong_requests_are_sentences(
    votes: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reward", "fit", str(votes), "--out", str(tmp_path / "mine"), *words]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert sentence in told
    assert "Traceback" not in told
    assert not (tmp_path / "mine").exists()
