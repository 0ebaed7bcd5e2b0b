"""Votes on a leaderboard: the page, Markdown, JSON, rewards held against people, and what is said of doubtful votes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from dipp_cli.app import main
from dipp_cli.build import build_app
from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.leaderboard.board import Board, make_board
from dipp_toolkit.experiments.leaderboard.markdown import escaped, to_markdown
from dipp_toolkit.experiments.leaderboard.page import render
from dipp_toolkit.experiments.leaderboard.votes import VoteBoard, make_vote_board
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.preferences.reward_scores import images_of, score_candidates
from dipp_toolkit.preferences.vote_file import IMAGES, NewCandidate, VoteFile
from fake_rows import fake_row
from fake_votes import Grey, fake_images, fake_votes, rating

PICTURES = fake_images(12)
VOTES = [vote for seed, voter in enumerate(("ann", "bob")) for vote in fake_votes(PICTURES, voter, 200, seed)]
ONCE = {(vote.voter, frozenset((vote.first.id, vote.second.id))): vote for vote in VOTES}
AGAIN = [Comparison(vote.second, vote.first, 1 - vote.outcome, vote.voter, repeat=True) for vote in ONCE.values()][:10]
SCORES = {
    "./mine.py:grey": {image.id: rating(image) for image in PICTURES},
    "contrary": {image.id: -rating(image) for image in PICTURES},
}


@pytest.fixture(scope="module")
def board() -> VoteBoard:
    return make_vote_board([*VOTES, *AGAIN], SCORES)


def test_makers_are_in_order_and_their_numbers_agree_with_the_votes(board: VoteBoard) -> None:
    assert [maker.name for maker in board.makers] == ["strong", "middle", "weak"]
    assert [maker.rank for maker in board.makers] == [1, 2, 3]
    assert sum(maker.rating.mean for maker in board.makers) == pytest.approx(0, abs=1e-6)
    assert all(maker.rating.low < maker.rating.mean < maker.rating.high for maker in board.makers)
    assert (board.votes, board.repeats, board.ties, board.prompts) == (400, 10, 0, 12)
    assert sum(maker.votes for maker in board.makers) == 2 * 400
    strong = [vote for vote in VOTES if {vote.first.maker, vote.second.maker} == {"strong", "weak"}]
    won = sum(vote.winner is not None and vote.winner.maker == "strong" for vote in strong)
    interval, count = board.win_rates["strong", "weak"]
    assert (interval.mean, count) == (pytest.approx(won / len(strong)), len(strong))
    (warned,) = board.warnings
    assert warned.startswith("The reward 'contrary' agrees with the votes on 1")


def test_rewards_and_people_stand_beside_each_other(board: VoteBoard) -> None:
    assert list(board.agreements) == ["people, one with another", "people, asked again", "mine.py:grey", "contrary"]
    people, again, grey, contrary = board.agreements.values()
    assert again.count == 10 and again.share.mean > 0.7 and grey.share.contains(0.9)
    # Two who err on a tenth each agree on 82 of 100.
    assert people.share.contains(0.82)
    assert contrary.share.mean == pytest.approx(1 - grey.share.mean)
    assert board.categories == ["animals", "food"]


def test_the_page_shows_all_of_it_beside_rows_and_alone(board: VoteBoard) -> None:
    alone = render(Board([], []), "Mine", board)
    page = BeautifulSoup(alone, "html.parser")
    for heading in ("What people prefer", "Who wins against whom", "Who agrees with people", "Voters"):
        assert heading in [found.text for found in page.find_all("h2")]
    names = [
        cell.text.split()[-1] for cell in page.select_one("section[aria-labelledby=votes-makers] tbody").find_all("th")
    ]
    assert names == ["strong", "middle", "weak"]
    assert "http://" not in alone and "https://" not in alone and "Means over prompts" not in alone
    both = render(make_board([fake_row("plain", 0.0)]), "Both", board)
    assert (
        "What people prefer" in both
        and "Means over prompts" in both
        and "What people prefer" not in render(make_board([fake_row("plain", 0.0)]), "Rows")
    )


def test_names_of_strangers_are_words_on_the_page_and_in_markdown() -> None:
    name = "<b>|x_y*"
    one, two = (Candidate(number, "p", name * number, Grey(0.5), name) for number in range(2))
    board = make_vote_board(
        [Comparison(one, two, 1.0, name), Comparison(two, one, 1.0, name)], {name: {0: 1.0, 1: 0.0}}
    )
    assert "<b>" not in render(Board([], []), "Mine", board).partition("</style>")[2]
    text = to_markdown(Board([], []), board)
    assert "<b>" not in text and "&lt;b&gt;\\|x\\_y\\*" in text and "(no name)" in text


def test_markdown_has_the_same_numbers(board: VoteBoard) -> None:
    text = to_markdown(make_board([fake_row("plain", 0.0)]), board)
    best = board.makers[0]
    assert f"| 1 | strong | +{best.rating.mean:.0f} (" in text and "| plain |" in text
    assert f"| mine.py:grey | {100 * board.agreements['mine.py:grey'].share.mean:.0f} % (" in text
    assert "400 votes of 2 voters on 72 images of 12 prompts, 0 ties among them; 10 questions asked again" in text


@pytest.mark.parametrize(
    ("votes", "sentence"),
    [
        ([Comparison(vote.first, vote.second, 0.5, "ann") for vote in VOTES[:40]], "All 40 votes are ties"),
        (
            [
                Comparison(Candidate(1, p, "", Grey(0.2)), Candidate(2, p, "", Grey(0.4)), 1.0, "ann")
                for p in ("a", "b")
            ],
            "have one maker, (no name), so that there are no ratings of makers.",
        ),
        ([vote for vote in VOTES if vote.first.prompt == "prompt 3"], "All votes are on one prompt"),
        (
            [vote for vote in VOTES if vote.winner is not None and vote.winner.maker != "weak"],
            "held by the penalty alone",
        ),
        ([*VOTES, *fake_votes(PICTURES, "eve", 200, 5, wrong=1.0)], "The voter 'eve' agrees with the others on"),
    ],
    ids=["all ties", "one maker", "one prompt", "never lost", "one voter against all"],
)
def test_doubtful_votes_are_shown_with_a_sentence(votes: list[Comparison], sentence: str) -> None:
    board = make_vote_board(votes)
    assert any(sentence in warning for warning in board.warnings), board.warnings
    assert len(board.warnings) == len(set(board.warnings))
    page, text = render(Board([], []), "Mine", board), to_markdown(Board([], []), board)
    assert "Warnings about the votes" in page
    assert escaped(sentence) in text
    json.dumps(board.as_dict())


def test_no_vote_is_no_board() -> None:
    for nothing in ([], AGAIN):
        with pytest.raises(RequestError, match="There are no votes to show"):
            make_vote_board(nothing)


def test_images_of_other_sizes_are_scored_each_once() -> None:
    asked: list[tuple[int, ...]] = []

    class Mean:
        differentiable = False

        def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
            asked.append(tuple(images.shape))
            return images.mean((1, 2, 3))

    images = [Candidate(number, "p", "m", Grey(number / 10, 4 + number % 2)) for number in range(7)]
    votes = [Comparison(one, two, 1.0, "ann") for one, two in pairwise(images)]
    scores, notices = score_candidates({"mean": Mean()}, images_of(votes), batch=3)
    assert scores["mean"] == pytest.approx({number: number / 10 for number in range(7)}, abs=1e-6)
    assert sum(shape[0] for shape in asked) == 7 and notices == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def grey(images, prompts):\n    return images.mean((1, 2, 3))\n", encoding="utf-8")
    images = fake_images(6, 1)
    with VoteFile.open(tmp_path / "votes", create=True) as file:
        file.add(NewCandidate(one.prompt, one.maker, one.picture.read(), one.category) for one in images)
        kept = {(one.prompt, one.maker): one.id for one in file.candidates()}
        for vote in fake_votes(images, count=40):
            pair = [kept[image.prompt, image.maker] for image in (vote.first, vote.second)]
            file.vote(file.show("ann", *pair).id, "first" if vote.outcome else "second")
    return tmp_path / "votes"


def test_the_command_writes_and_says_what_the_votes_say(folder: Path) -> None:
    app, runner = build_app(), CliRunner()
    words = ["leaderboard", "--votes", "votes", "--reward", "./mine.py:grey", "--markdown", "table.md"]
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["files"] == ["leaderboard.html", "table.md"] and said["sections"] == []
    assert said["votes"]["makers"][0]["name"] == "strong"
    assert said["votes"]["rewards"]["./mine.py:grey"]["mean"] > 0.75
    assert said["votes"]["agreement_of_voters"] is None and said["votes"]["votes"] == 40
    assert "What people prefer" in Path("leaderboard.html").read_text(encoding="utf-8")
    plain = runner.invoke(app, words)
    assert plain.exit_code == 0
    for words_shown in ("40 votes of 1 voter", "strong", "mine.py:grey", "leaderboard.html"):
        assert words_shown in plain.stdout


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_an_image_that_is_gone_is_told_and_nothing_is_written(
    what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted((folder / IMAGES).iterdir())[0]
    if what == "missing":
        image.unlink()
    else:
        image.write_bytes(b"none")
    assert main(["leaderboard", "--votes", "votes", "--reward", "./mine.py:grey"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("Error: ") and image.name in said
    assert not Path("leaderboard.html").exists()
    # Without a reward nobody has to look at it.
    assert main(["leaderboard", "--votes", "votes"]) == 0


def test_a_folder_in_which_nobody_voted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    VoteFile.open(tmp_path / "votes", create=True).close()
    assert main(["leaderboard", "--votes", "votes"]) == 2
    assert "Nobody has voted in" in capsys.readouterr().err
