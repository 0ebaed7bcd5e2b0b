"""`dipp align` as it is typed: a whole round on the emoji world, and requests that cannot be met."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from dipp_cli.actions import align as action
from dipp_cli.actions.align import OnPage
from dipp_cli.app import main
from dipp_cli.terminal.output import print_line
from dipp_toolkit.experiments.alignment.duels import Duels
from dipp_toolkit.experiments.alignment.rounds import AlignResult
from dipp_toolkit.experiments.alignment.settings import AlignSettings
from dipp_toolkit.experiments.voting.session import Session
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile
from dipp_toolkit.utils.packages import missing_of

SMALL = (
    "align", "--backbone", "emoji-clip", "--simulate", "colourfulness", "--noise", "0", "--votes", "24",
    "--compared", "20", "--prompt-count", "10", "--per-prompt", "3", "--steps", "1", "--batch-size", "4", "--rounds",
    "1", "--seed", "2",
    "--set", "eval_count=2", "--set", "reference_steps=2", "--set", "assistant_warmup=0", "--quiet",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_of(["trl"])), reason="trl is needed: pip install 'dipp-toolkit[fit]'")
def test_a_round_from_votes_to_a_generator(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "aligned"
    assert main([*SMALL, "--out", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    (found,) = answer["rounds"]
    assert found["votes"] >= 20
    assert found["compared"] == 20
    assert 0 <= found["win_rate"]["low"] <= found["win_rate"]["mean"] <= found["win_rate"]["high"] <= 1
    assert (out / "round-1" / "run" / "final" / "model_index.json").is_file()
    assert "Round 1" in (out / "align.html").read_text(encoding="utf-8")
    assert main([*SMALL, "--out", str(out)]) == 0  # nothing is left to do
    said = capfd.readouterr().out
    assert str(out / "align.html") in said
    assert main(["score", str(out / "round-1" / "votes" / "images"), "--reward", str(out / "round-1" / "reward"),
                 "--prompt", "a fox"]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--simulate", "colourfullness"], "colourfulness"),
        (["--noise", "0.7", "--simulate", "colourfulness"], "expected 0 to 0.5"),
        (["--noise", "0.7", "--simulate", "colourfulness", "--dry-run"], "expected 0 to 0.5"),
        (["--repeats", "0.7", "--dry-run"], "expected a share of the votes from 0 to 0.5"),
        (["--voters", "0"], "--voters is 0"),
        (["--picking", "clever"], "adaptive"),
        (["--votes", "9999"], "raise --prompt-count or --per-prompt"),
        (["--beside", "emoji-referense"], "emoji-reference"),
        (["--backbone", "nothing-like-it", "--simulate", "colourfulness"], "nothing-like-it"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["align", "--out", str(tmp_path / "align"), *words]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (tmp_path / "align" / "round-1" / "votes").exists()


def test_a_dry_run_says_what_would_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "--out", str(tmp_path / "align"), "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "300 votes of each voter" in str(rows)
    assert not (tmp_path / "align").exists()


def test_the_page_ends_when_so_many_voters_have_reached_the_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    votes = VoteFile.open(tmp_path / "votes", create=True)
    for maker, level in (("before", 0.2), ("after", 0.8)):
        votes.add(NewCandidate(f"prompt {number}", maker, torch.full((3, 4, 4), level)) for number in range(4))
    session = Session(votes, lambda images, _: Duels(images), goal=2, repeats=0.0)
    page = threading.Thread(target=OnPage(2, 0, False).ask, args=(session, "Which is better?"), daemon=True)
    page.start()
    for voter in ("ann", "ben"):
        for _ in range(2):
            assert page.is_alive()
            showing = session.question(voter)
            assert showing is not None
            session.answer(voter, showing.id, "first")
    page.join(60)
    assert not page.is_alive()
    assert "Which is better? 2 votes of 2 voters, here: http://127.0.0.1:" in capsys.readouterr().out
    OnPage(2, 0, False).ask(session, "Which is better?")  # nothing is left to ask, and no page is served
    assert capsys.readouterr().out == ""


def test_json_stands_alone_on_stdout_where_people_vote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def align(settings: AlignSettings, voters: object, listener: object) -> AlignResult:
        assert isinstance(voters, action.OnPage)
        print_line("300 votes of 1 voter, here: http://127.0.0.1:8701/")
        return AlignResult(settings.out, [], "emoji-onestep", settings.out / "align.html")

    monkeypatch.setattr(action, "align", align)
    monkeypatch.setattr("dipp_toolkit.experiments.voting.serve.NEEDED", ())
    assert main(["align", "--out", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["generator"] == "emoji-onestep"
    assert "here: http" in said.err
    assert main(["align", "--out", str(tmp_path)]) == 0
    assert "here: http" in capsys.readouterr().out
