"""Who is asked what: any order of votes, reloads, undos and kills loses and doubles nothing."""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.voting.session import BETWEEN, Session
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.preferences.vote_file import NewCandidate, VoteFile

VOTERS = ("ann", "bob")
OUTCOMES = {"first": 1.0, "second": 0.0, "equal": 0.5}


class AnyPair:
    """A picker that knows nothing: pairs in a shuffled order."""

    def __init__(self, images: Sequence[Candidate], comparisons: Sequence[Comparison]):
        self.learnt = list(comparisons)
        self.pairs = [
            (one.id, other.id) for one, other in itertools.combinations(images, 2) if one.prompt == other.prompt
        ]
        random.Random(0).shuffle(self.pairs)

    def pick(self, voter: str, avoid: Collection[frozenset[int]] = ()) -> tuple[int, int] | None:
        return next((pair for pair in self.pairs if frozenset(pair) not in avoid), None)

    def add(self, comparison: Comparison) -> None:
        self.learnt.append(comparison)


def filled(folder: Path, prompts: int = 3, makers: Sequence[str] = "abc") -> VoteFile:
    votes = VoteFile.open(folder, create=True)
    votes.add(
        NewCandidate(f"prompt {number}", maker, torch.full((3, 4, 4), (number * len(makers) + index) / 32))
        for number in range(prompts)
        for index, maker in enumerate(makers)
    )
    return votes


def vote_on(session: Session, voter: str, choice: str = "first") -> None:
    showing = session.question(voter)
    assert showing is not None
    assert session.answer(voter, showing.id, choice)


class Voting(RuleBasedStateMachine):
    """Two voters at a session that may be killed and made anew at any moment."""

    @initialize(repeats=st.sampled_from([0.0, 0.2, 0.5]))
    def begin(self, repeats: float) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.repeats = repeats
        self.votes = filled(self.folder)
        self.session = Session(self.votes, AnyPair, goal=5, repeats=repeats)
        self.said: dict[str, list[tuple[str, int, int, float]]] = {voter: [] for voter in VOTERS}

    @rule(voter=st.sampled_from(VOTERS), choice=st.sampled_from(sorted(OUTCOMES)), times=st.integers(1, 3))
    def vote(self, voter: str, choice: str, times: int) -> None:
        showing = self.session.question(voter)
        if showing is None:
            return
        for number in range(times):  # a request may arrive again
            assert self.session.answer(voter, showing.id, choice) == (number == 0)
        self.said[voter].append((showing.id, showing.first.id, showing.second.id, OUTCOMES[choice]))

    @rule(voter=st.sampled_from(VOTERS), times=st.integers(1, 2))
    def undo(self, voter: str, times: int) -> None:
        if not self.said[voter]:
            assert not self.session.undo(voter)
            return
        last = self.said[voter].pop()
        for number in range(times):
            assert self.session.undo(voter, last[0]) == (number == 0)
        again = self.session.question(voter)
        assert again is not None
        assert (again.first.id, again.second.id) == last[1:3]

    @rule(voter=st.sampled_from(VOTERS))
    def load_again(self, voter: str) -> None:
        before = self.session.question(voter)
        self.session.ahead(voter)
        after = self.session.question(voter)
        assert (before and before.id) == (after and after.id)

    @rule(voter=st.sampled_from(VOTERS))
    def look_ahead(self, voter: str) -> None:
        if self.session.question(voter) is None:
            return
        expected = self.session.ahead(voter)
        showing = self.session.question(voter)
        assert showing is not None
        self.vote(voter, "equal", 1)
        after = self.session.question(voter)
        if expected is not None and after is not None and not after.repeat_of:
            assert (after.first.id, after.second.id) == tuple(image.id for image in expected)

    @rule()
    def kill(self) -> None:
        before = {voter: self.session.question(voter) for voter in VOTERS}
        self.votes.close()
        self.votes = VoteFile.open(self.folder)
        self.session = Session(self.votes, AnyPair, goal=5, repeats=self.repeats)
        for voter, showing in before.items():
            after = self.session.question(voter)
            assert (showing and showing.id) == (after and after.id)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        kept = self.votes.comparisons()
        for voter in VOTERS:
            said = [row[1:] for row in self.said[voter]]
            assert [(one.first.id, one.second.id, one.outcome) for one in kept if one.voter == voter] == said
            new = [one.pair for one in kept if one.voter == voter and not one.repeat]
            assert len(set(new)) == len(new), "a pair was asked as new twice"
            assert self.session.progress(voter).votes == len(said)

    def teardown(self) -> None:
        if hasattr(self, "votes"):
            self.votes.close()
            shutil.rmtree(self.folder)


TestVoting = Voting.TestCase
TestVoting.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)


def test_repeats_have_their_share_and_come_late(tmp_path: Path) -> None:
    session = Session(filled(tmp_path, prompts=12), AnyPair, repeats=0.1)
    for _ in range(30):
        vote_on(session, "ann")
    given = [showing for showing, _ in session.votes.votes_of("ann")]
    repeats = [number for number, showing in enumerate(given) if showing.repeat_of]
    assert len(repeats) == 3
    ids = [showing.id for showing in given]
    for number in repeats:
        original = ids.index(given[number].repeat_of)
        assert number - original > BETWEEN
        assert {given[number].first.id, given[number].second.id} == {
            given[original].first.id,
            given[original].second.id,
        }
    assert session.progress("ann").repeats == 3


def test_consistency_is_about_images_and_not_about_sides(tmp_path: Path) -> None:
    session = Session(filled(tmp_path, prompts=12), AnyPair, repeats=0.2)
    for _ in range(30):
        showing = session.question("ann")
        assert showing is not None
        session.answer("ann", showing.id, "first" if showing.first.id < showing.second.id else "second")
    progress = session.progress("ann")
    assert progress.repeats == progress.consistent == 6


def test_sides_are_drawn_and_the_same_seed_draws_the_same(tmp_path: Path) -> None:
    def sides(name: str, seed: int) -> list[tuple[int, int]]:
        session = Session(filled(tmp_path / name, prompts=14), AnyPair, repeats=0, seed=seed)
        shown = []
        for _ in range(40):
            showing = session.question("ann")
            assert showing is not None
            shown.append((showing.first.id, showing.second.id))
            session.answer("ann", showing.id, "equal")
        return shown

    first = sides("a", 0)
    assert first == sides("b", 0)
    assert first != sides("c", 1)
    assert 10 < sum(left < right for left, right in first) < 30


def test_every_pair_and_then_nothing(tmp_path: Path) -> None:
    session = Session(filled(tmp_path, prompts=2), AnyPair, repeats=0)
    for _ in range(6):
        vote_on(session, "ann")
    assert session.question("ann") is None
    assert session.ahead("ann") is None
    assert session.question("bob") is not None


def test_two_processes_ask_a_voter_of_one_name_the_same_question(tmp_path: Path) -> None:
    """The second process is picking a pair while the first one asks about it."""
    first, second = filled(tmp_path), VoteFile.open(tmp_path)
    other, asked = Session(first, AnyPair, repeats=0.0), []

    class Overtaken(AnyPair):
        def pick(self, voter: str, avoid: Collection[frozenset[int]] = ()) -> tuple[int, int] | None:
            picked = super().pick(voter, avoid)
            if not asked:
                asked.append(other.question(voter))
            return picked

    session = Session(second, Overtaken, repeats=0.0)
    assert session.question("ann") == asked[0]
    assert len(second.open_showings("ann")) == 1
    assert session.answer("ann", asked[0].id, "first")
    assert not other.answer("ann", asked[0].id, "second")  # the other window's vote on the same question
    assert len(first.comparisons()) == 1
    first.close()
    second.close()


def test_two_processes_repeat_a_pair_once(tmp_path: Path) -> None:
    files = [filled(tmp_path, prompts=8), VoteFile.open(tmp_path)]
    sessions = [Session(votes, AnyPair, repeats=0.5) for votes in files]
    for number in range(16):
        for session in sessions:
            session.ahead("ann")  # both know what they would ask next
        vote_on(sessions[number % 2], "ann")
    repeats = [showing.repeat_of for showing, _ in files[0].votes_of("ann") if showing.repeat_of]
    assert len(repeats) > 2
    assert len(set(repeats)) == len(repeats)
    for votes in files:
        votes.close()


def test_the_picker_learns_of_votes_and_forgets_those_that_are_taken_back(tmp_path: Path) -> None:
    session = Session(filled(tmp_path), AnyPair)
    vote_on(session, "ann")
    vote_on(session, "bob", "second")
    assert [one.voter for one in session._picker.learnt] == ["ann", "bob"]  # type: ignore[attr-defined]
    session.undo("ann")
    assert [one.voter for one in session._picker.learnt] == ["bob"]  # type: ignore[attr-defined]


def test_going_on_beyond_the_goal(tmp_path: Path) -> None:
    session = Session(filled(tmp_path), AnyPair, goal=2)
    vote_on(session, "ann")
    assert not session.progress("ann").done
    vote_on(session, "ann")
    assert session.progress("ann").done
    session.go_on("ann")
    assert (session.progress("ann").done, session.progress("ann").goal) == (False, 4)
    assert session.progress("bob").goal == 2


def test_who_goes_on_has_finished_and_so_has_who_saw_every_pair(tmp_path: Path) -> None:
    session = Session(filled(tmp_path / "many"), AnyPair, goal=1)
    assert not session.finished("ann")
    vote_on(session, "ann")
    session.go_on("ann")
    assert session.finished("ann") and not session.progress("ann").done
    session = Session(filled(tmp_path / "few", prompts=1), AnyPair, goal=99, repeats=0)
    while session.question("ann") is not None:
        assert not session.finished("ann")
        vote_on(session, "ann")
    assert session.finished("ann") and not session.finished("bob")


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_missing_or_damaged_image_is_passed_over(tmp_path: Path, harm: str) -> None:
    votes = filled(tmp_path, prompts=2)
    session = Session(votes, AnyPair, repeats=0)
    showing = session.question("ann")
    assert showing is not None
    lost = showing.first
    path = lost.picture.path  # type: ignore[attr-defined]
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:30])
    session = Session(votes, AnyPair, repeats=0)
    asked = set()
    while (after := session.question("ann")) is not None:
        assert lost.id not in (after.first.id, after.second.id)
        asked.add(frozenset((after.first.id, after.second.id)))
        session.answer("ann", after.id, "first")
    assert len(asked) == 4  # three of the other prompt, one of this one
    assert str(path) in session.lost[lost.id]


def test_a_voter_answers_only_what_this_voter_was_asked(tmp_path: Path) -> None:
    session = Session(filled(tmp_path), AnyPair)
    showing = session.question("ann")
    assert showing is not None
    for voter, name in (("bob", showing.id), ("ann", "0123")):
        with pytest.raises(RequestError, match="was not asked"):
            session.answer(voter, name, "first")
    with pytest.raises(RequestError, match="first, second or equal"):
        session.answer("ann", showing.id, "both")
    assert session.votes.comparisons() == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"goal": 0}, "--goal is 0"), ({"repeats": 0.6}, "--repeats is 0.6"), ({"repeats": float("nan")}, "--repeats")],
)
def test_numbers_out_of_range(tmp_path: Path, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Session(filled(tmp_path), AnyPair, **options)  # type: ignore[arg-type]


def test_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="it has no images"):
        Session(filled(tmp_path / "none", prompts=0), AnyPair)
    with pytest.raises(RequestError, match="of its 3 images, no two have the same prompt"):
        Session(filled(tmp_path / "single", makers="a"), AnyPair)
