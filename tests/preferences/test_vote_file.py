"""Votes in a folder: none is lost, none counts twice, and nothing that was written changes."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.preferences import vote_file
from dipp_toolkit.preferences.loading import load_comparisons
from dipp_toolkit.preferences.pair import OUTCOMES
from dipp_toolkit.preferences.vote_file import FILE, NewCandidate, VoteFile

PROMPTS = ("a fox", "an owl")


def images(count: int = 3, size: int = 8) -> list[NewCandidate]:
    def pixels(place: int, number: int) -> torch.Tensor:
        return torch.rand(3, size, size, generator=torch.Generator().manual_seed(10 * place + number))

    return [
        NewCandidate(prompt, f"maker {number % 2}", pixels(place, number), "animals")
        for place, prompt in enumerate(PROMPTS)
        for number in range(count)
    ]


@pytest.fixture
def votes(tmp_path: Path) -> VoteFile:
    file = VoteFile.open(tmp_path / "votes", create=True)
    file.add(images())
    return file


def test_images_are_kept_as_rewards_see_them(votes: VoteFile) -> None:
    candidates = votes.candidates()
    assert [(one.prompt, one.maker, one.category) for one in candidates[:2]] == [
        ("a fox", "maker 0", "animals"),
        ("a fox", "maker 1", "animals"),
    ]
    expected = images()[0].pixels.mul(255).round() / 255
    torch.testing.assert_close(candidates[0].picture.read(), expected)
    assert candidates[0].picture.encoded().startswith(b"\x89PNG")


def test_an_image_is_added_once(votes: VoteFile) -> None:
    assert votes.add(images()) == 0
    assert votes.add(images(4)) == 2
    assert len(votes.candidates()) == 8


def test_a_vote_counts_once(votes: VoteFile) -> None:
    showing = votes.show("ann", 1, 2)
    assert votes.vote(showing.id, "second")
    assert not votes.vote(showing.id, "first")
    (comparison,) = votes.comparisons()
    assert (comparison.first.id, comparison.second.id, comparison.outcome, comparison.voter) == (1, 2, 0.0, "ann")
    assert comparison.winner is not None and comparison.loser is not None
    assert (comparison.winner.id, comparison.loser.id) == (2, 1)


def test_many_at_once_count_once(votes: VoteFile) -> None:
    showing = votes.show("ann", 1, 2)
    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(lambda _: votes.vote(showing.id, "first"), range(32)))
    assert sum(counted) == 1
    assert len(votes.comparisons()) == 1


def test_undo_asks_again_and_a_late_repetition_takes_nothing_more_back(votes: VoteFile) -> None:
    first, second = votes.show("ann", 1, 2), votes.show("ann", 2, 3)
    votes.vote(first.id, "first")
    votes.vote(second.id, "equal")
    again = votes.undo("ann", second.id)
    assert again is not None and (again.first.id, again.second.id) == (2, 3)
    assert votes.undo("ann", second.id) is None
    assert not votes.vote(second.id, "first")  # sent late, from before it was taken back
    assert votes.open_showing("ann") == again
    assert votes.vote(again.id, "second")
    assert [comparison.outcome for comparison in votes.comparisons()] == [1.0, 0.0]


def test_a_tie_has_no_winner(votes: VoteFile) -> None:
    votes.vote(votes.show("ann", 1, 2).id, "equal")
    (comparison,) = votes.comparisons()
    assert (comparison.outcome, comparison.winner, comparison.loser) == (0.5, None, None)


def test_voters_do_not_disturb_each_other(votes: VoteFile) -> None:
    ann, ben = votes.show("ann", 1, 2), votes.show("ben", 1, 2)
    votes.vote(ann.id, "first")
    assert votes.undo("ben") is None
    assert votes.open_showing("ben") == ben
    assert votes.open_showing("ann") is None


def test_rows_never_change(votes: VoteFile) -> None:
    votes.vote(votes.show("ann", 1, 2).id, "first")
    file = sqlite3.connect(votes.folder / FILE)
    for change in ("DELETE FROM votes", "UPDATE votes SET choice = 'equal'", "DELETE FROM images"):
        with pytest.raises(sqlite3.IntegrityError, match="only added"):
            file.execute(change)


def test_after_a_write_that_failed_a_vote_is_on_the_disk(votes: VoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vote_file, "PATIENCE", 0.0)
    with VoteFile.open(votes.folder) as own:
        one, two = own.show("ann", 1, 2), own.show("ann", 2, 3)
        own.vote(one.id, "first")
        reader = sqlite3.connect(votes.folder / FILE, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM votes").fetchall()  # for as long as it looks, nothing can be committed
        with pytest.raises(RunError, match="locked"):
            own.undo("ann", one.id)
        reader.execute("COMMIT")
        assert own.vote(two.id, "second")
        assert len(votes.comparisons()) == 2  # through a connection of its own
        assert own.undo("ann", two.id) is not None


def test_who_only_reads_writes_nothing(votes: VoteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    votes.vote(votes.show("ann", 1, 2).id, "first")
    monkeypatch.setattr(vote_file, "PATIENCE", 0.0)
    writer = sqlite3.connect(votes.folder / FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")  # nobody else may write now
    assert len(load_comparisons(votes.folder)) == 1
    writer.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("first", "second", "voter", "said"),
    [
        (1, 99, "ann", "no image number 99 among the 6"),
        (1, 1, "ann", "two images of one prompt"),
        (1, 4, "ann", "two images of one prompt"),
        (1, 2, " ", "1 to 80 printable"),
        (1, 2, "a\x1b[2J", "1 to 80 printable"),
    ],
)
def test_what_cannot_be_shown(votes: VoteFile, first: int, second: int, voter: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        votes.show(voter, first, second)


def test_what_cannot_be_voted(votes: VoteFile) -> None:
    with pytest.raises(RequestError, match="first, second or equal"):
        votes.vote(votes.show("ann", 1, 2).id, "left")
    with pytest.raises(RequestError, match="no question"):
        votes.vote("0123", "first")


def test_what_is_no_file_of_votes(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"There is no folder .*dipp vote"):
        VoteFile.open(tmp_path / "nothing")
    with pytest.raises(RequestError, match="There are no votes in"):
        VoteFile.open(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE).write_text("not SQLite at all, though long enough to be looked at", encoding="utf-8")
    with pytest.raises(RequestError, match="cannot be used as a file of votes"):
        VoteFile.open(tmp_path / "text")
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / FILE) as other:
        other.execute("CREATE TABLE answers (key TEXT)")
    with pytest.raises(RequestError, match="something else than votes"):
        VoteFile.open(tmp_path / "other", create=True)


def test_loading_wants_votes(votes: VoteFile) -> None:
    with pytest.raises(RequestError, match="Nobody has voted"):
        load_comparisons(votes.folder)
    votes.vote(votes.show("ann", 1, 2).id, "first")
    assert load_comparisons(votes.folder / FILE) == load_comparisons(votes.folder) == votes.comparisons()


def test_advice_is_right_for_a_folder_whose_name_has_a_space(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"dipp vote '.*/my votes' --generators NAMES --prompts SET"):
        VoteFile.open(tmp_path / "my votes")
    VoteFile.open(tmp_path / "my votes", create=True).close()
    with pytest.raises(RequestError, match=r"Nobody has voted in .*: dipp vote '.*/my votes'"):
        load_comparisons(tmp_path / "my votes")


def test_a_copy_of_the_folder_is_whole(votes: VoteFile, tmp_path: Path) -> None:
    votes.vote(votes.show("ann", 1, 2).id, "first")
    shutil.copytree(votes.folder, tmp_path / "copy")
    (comparison,) = load_comparisons(tmp_path / "copy")
    assert comparison.first.picture.read().shape == (3, 8, 8)


def test_a_kill_loses_no_vote_that_was_confirmed(votes: VoteFile) -> None:
    program = textwrap.dedent(
        """
        import sys
        from dipp_toolkit.preferences.vote_file import VoteFile
        votes = VoteFile.open(sys.argv[1])
        while True:
            showing = votes.show("ann", 1, 2)
            votes.vote(showing.id, "first")
            print(showing.id, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(votes.folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    confirmed = [process.stdout.readline().strip() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    kept = [showing.id for showing, _ in votes.votes_of("ann")]
    assert kept[: len(confirmed)] == confirmed
    assert set(rest) <= set(kept)
    assert len(kept) == len(set(kept)) <= len(confirmed) + len(rest) + 1


class Model:
    """What the file must say, in plain lists."""

    def __init__(self) -> None:
        self.votes: dict[str, list[tuple[str, str]]] = {}

    def standing(self) -> int:
        return sum(map(len, self.votes.values()))


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["show", "vote", "send again", "undo", "reopen"]),
        st.sampled_from(["ann", "ben"]),
        st.sampled_from(sorted(OUTCOMES)),
    ),
    max_size=30,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_any_order_of_votes_undos_and_restarts(tmp_path_factory: pytest.TempPathFactory, actions: list) -> None:
    folder = tmp_path_factory.mktemp("any") / "votes"
    file, model = VoteFile.open(folder, create=True), Model()
    file.add(images())
    last: dict[str, str] = {}
    for action, voter, choice in actions:
        mine = model.votes.setdefault(voter, [])
        if action == "show":
            file.show(voter, 1, 2)
        elif action == "vote" and (showing := file.open_showing(voter)) is not None:
            assert file.vote(showing.id, choice)
            mine.append((showing.id, choice))
            last[voter] = showing.id
        elif action == "send again" and voter in last:
            assert not file.vote(last[voter], choice)
        elif action == "undo":
            assert (file.undo(voter) is not None) == bool(mine)
            del mine[-1:]
        elif action == "reopen":
            file.close()
            file = VoteFile.open(folder)
        assert len(file.comparisons()) == model.standing()
    for voter, mine in model.votes.items():
        assert [(showing.id, choice) for showing, choice in file.votes_of(voter)] == mine
