"""Which pair is shown to whom: the one that is open, a repeat where one is due, or the one that teaches most."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...distributed.shared_draws import digest_seed
from ...errors import RequestError
from ...preferences.pair import OUTCOMES, Candidate, Comparison
from ...preferences.vote_file import Showing, VoteFile, voter_name
from ...utils.messages import quoted

GOAL, REPEATS = 100, 0.05
"""Votes that a voter is asked for, and the share of them that are asked a second time."""
BETWEEN = 5
"""Votes between a pair and its repeat, at least: a voter is not to remember the answer."""


@runtime_checkable
class Picker(Protocol):
    """Chooses pairs."""

    def pick(self, voter: str, avoid: Collection[frozenset[int]] = ()) -> tuple[int, int] | None:
        """The ids of two images of one prompt; None where no pair is left that is not to be avoided."""

    def add(self, comparison: Comparison) -> None:
        """Learn of a vote."""


PickerMaker = Callable[[Sequence[Candidate], Sequence[Comparison]], Picker]
"""Makes a picker of the images that can be shown and the votes that there are."""


@dataclass(frozen=True)
class Progress:
    """How far a voter is.

    Attributes:
        votes: that stand, repeats among them.
        goal: votes that are asked for.
        repeats: of the votes, those of pairs that were asked before.
        consistent: of the repeats, those with the same answer as before.
        last: the showing of the last vote that stands, which an undo takes back; empty where there is none.
    """

    votes: int
    goal: int
    repeats: int
    consistent: int
    last: str

    @property
    def done(self) -> bool:
        """Whether the goal is reached."""
        return self.votes >= self.goal


@dataclass(frozen=True)
class _Plan:
    """A pair that will be shown next: on the left, on the right, and the showing that it repeats."""

    left: int
    right: int
    repeat_of: str = ""

    @property
    def pair(self) -> frozenset[int]:
        return frozenset((self.left, self.right))


class Session:
    """Asks any number of voters, and keeps what they say.

    Everything that has to last is in the file of votes: a session that is made anew, after a kill too, goes on where
    the last one was. Which image is on the left is drawn from the seed, the voter, the pair and the number of votes
    before. Safe to use from several threads.

    Args:
        votes: where the images are, and the votes go.
        make_picker: chooses new pairs.
        goal: votes that each voter is asked for.
        repeats: the share of votes, 0 to 0.5, that ask about a pair again.
        seed: of sides and repeats.

    Raises:
        RequestError: a number is out of range, or no prompt has two images.
    """

    def __init__(
        self,
        votes: VoteFile,
        make_picker: PickerMaker,
        *,
        goal: int = GOAL,
        repeats: float = REPEATS,
        seed: int = 0,
    ):
        check_goal(goal, repeats)
        self.votes, self.make_picker, self.goal, self.repeats, self.seed = votes, make_picker, goal, repeats, seed
        self._lock = threading.RLock()
        self._goals: dict[str, int] = {}
        self._plans: dict[str, _Plan] = {}
        self._lost: dict[int, str] = {}
        self._sound: set[int] = set()
        _check_pairs(votes)
        self._picker = self._new_picker()

    @property
    def lost(self) -> dict[int, str]:
        """Images that cannot be shown, by id, each with a sentence that says why; their pairs are passed over."""
        with self._lock:
            return dict(self._lost)

    def question(self, voter: str) -> Showing | None:
        """What to show to a voter: the same until there is a vote on it; None where every pair was voted on.

        Raises:
            RequestError: the voter's name cannot be one.
            RunError: the votes cannot be read or written.
        """
        voter = voter_name(voter)
        with self._lock:
            while True:
                showing = self._open(voter) or self._ask(voter)
                if showing is None or self._look_at(showing.first, showing.second):
                    return showing

    def _open(self, voter: str) -> Showing | None:
        """What the voter was shown and has not voted on."""
        shown = self.votes.open_showings(voter)
        return next((one for one in shown if not self._has_lost(one.first, one.second)), None)

    def _ask(self, voter: str) -> Showing | None:
        """Show the next pair; None where there is none.

        Another process may ask the same voter on the same folder, so that it is looked once more whether nothing is
        open and the pair was not asked, where nobody else can write until the pair is shown.
        """
        if self._next_plan(voter) is None:  # picking takes its time, and others need not wait for it
            return None
        with self.votes.all_or_none():
            showing = self._open(voter)
            plan = None if showing is not None else self._next_plan(voter)
            if plan is not None:
                del self._plans[voter]
                showing = self.votes.show(voter, plan.left, plan.right, plan.repeat_of)
            return showing

    def ahead(self, voter: str) -> tuple[Candidate, Candidate] | None:
        """The images that are likely to be shown after those that are open, for a page that fetches them early."""
        voter = voter_name(voter)
        with self._lock:
            waiting = self.votes.open_showings(voter)[1:]
            if waiting:
                return waiting[0].first, waiting[0].second
            plan = self._next_plan(voter)
            if plan is None:
                return None
            images = {image.id: image for image in self.votes.candidates() if image.id in plan.pair}
            return images[plan.left], images[plan.right]

    def answer(self, voter: str, showing: str, choice: str) -> bool:
        """Keep a vote; see `VoteFile.vote`.

        Raises:
            RequestError: this voter was not asked that, or there is no such choice.
            RunError: the vote cannot be written.
        """
        with self._lock:
            shown = self.votes.showing(showing)
            if shown is None or shown.voter != voter_name(voter):
                raise RequestError(f"{quoted(voter)} was not asked {quoted(showing)}; load the page again.")
            if not self.votes.vote(showing, choice):
                return False
            if not self._has_lost(shown.first, shown.second):
                repeat = bool(shown.repeat_of)
                self._picker.add(Comparison(shown.first, shown.second, OUTCOMES[choice], shown.voter, repeat))
            return True

    def undo(self, voter: str, showing: str = "") -> bool:
        """Take the voter's last vote back; `question` asks about its pair again. See `VoteFile.undo`."""
        voter = voter_name(voter)
        with self._lock:
            if self.votes.undo(voter, showing) is None:
                return False
            self._picker = self._new_picker()
            return True

    def go_on(self, voter: str) -> None:
        """Ask a voter who has reached the goal for as many votes again."""
        voter = voter_name(voter)
        with self._lock:
            self._goals[voter] = self.goal * (len(self.votes.votes_of(voter)) // self.goal + 1)

    def progress(self, voter: str) -> Progress:
        """How far a voter is."""
        voter = voter_name(voter)
        with self._lock:
            given = self.votes.votes_of(voter)
            goal = self._goals.get(voter, self.goal)
        choices = {showing.id: (showing, choice) for showing, choice in given}
        again = [
            (choices[showing.repeat_of], (showing, choice)) for showing, choice in given if showing.repeat_of in choices
        ]
        consistent = sum(_preferred(*before) == _preferred(*now) for before, now in again)
        return Progress(len(given), goal, len(again), consistent, given[-1][0].id if given else "")

    def finished(self, voter: str) -> bool:
        """Whether a voter has given all votes that every voter is asked for, or no pair is left to ask about.

        Who goes on beyond the goal has finished all the same.
        """
        voter = voter_name(voter)
        with self._lock:
            if len(self.votes.votes_of(voter)) >= self.goal:
                return True
            waiting = self.votes.open_showings(voter)
            return all(self._has_lost(one.first, one.second) for one in waiting) and self._next_plan(voter) is None

    def lose(self, image: Candidate, sentence: str) -> None:
        """Pass over the pairs of an image that cannot be shown.

        Args:
            image: the one.
            sentence: says why.
        """
        with self._lock:
            if image.id not in self._lost:
                self._lost[image.id] = sentence
                self._picker = self._new_picker()

    def _has_lost(self, *images: Candidate) -> bool:
        return any(image.id in self._lost for image in images)

    def _look_at(self, *images: Candidate) -> bool:
        """Whether images can be shown; each is decoded once."""
        for image in images:
            try:
                if image.id not in self._sound:
                    image.picture.read()
                    self._sound.add(image.id)
            except RequestError as error:
                self.lose(image, str(error))
        return not self._has_lost(*images)

    def _new_picker(self) -> Picker:
        images = [image for image in self.votes.candidates() if image.id not in self._lost]
        comparisons = [one for one in self.votes.comparisons() if not self._has_lost(one.first, one.second)]
        return self.make_picker(images, comparisons)

    def _next_plan(self, voter: str) -> _Plan | None:
        """What is shown once nothing is open; the same until it has been shown."""
        given = self.votes.votes_of(voter)
        seen = {showing.pair for showing, _ in given}
        seen |= {showing.pair for showing in self.votes.open_showings(voter)}
        plan = self._plans.get(voter)
        if plan is not None:
            repeated = {showing.repeat_of for showing, _ in given}  # by another process too
            standing = {showing.id for showing, _ in given} - repeated
            lasts = plan.repeat_of in standing if plan.repeat_of else plan.pair not in seen
            if lasts and not plan.pair & self._lost.keys():
                return plan
        plan = self._repeat(voter, given) or self._new(voter, seen, len(given))
        if plan is None:
            self._plans.pop(voter, None)
        else:
            self._plans[voter] = plan
        return plan

    def _new(self, voter: str, seen: Collection[frozenset[int]], count: int) -> _Plan | None:
        pair = self._picker.pick(voter, seen)
        return None if pair is None else _Plan(*self._in_random_order(voter, pair, count))

    def _repeat(self, voter: str, given: Sequence[tuple[Showing, str]]) -> _Plan | None:
        """A pair to be asked about again, where that is due."""
        asked = {showing.repeat_of for showing, _ in given} - {""}
        if len(asked) + 1 > self.repeats * (len(given) + 1):
            return None
        old = [
            showing
            for showing, _ in given[: len(given) - BETWEEN]
            if not showing.repeat_of and showing.id not in asked and not self._has_lost(showing.first, showing.second)
        ]
        if not old:
            return None
        chosen = old[self._draw(voter, "repeat", len(given)) % len(old)]
        pair = (chosen.first.id, chosen.second.id)
        return _Plan(*self._in_random_order(voter, pair, len(given)), chosen.id)

    def _in_random_order(self, voter: str, pair: tuple[int, int], count: int) -> tuple[int, int]:
        low, high = sorted(pair)
        return (low, high) if self._draw(voter, f"{low} {high}", count) % 2 else (high, low)

    def _draw(self, voter: str, what: str, count: int) -> int:
        return digest_seed(f"{self.seed}\0{voter}\0{what}\0{count}".encode())


def _preferred(showing: Showing, choice: str) -> int | None:
    """The id of the image that a voter chose; None where neither was."""
    return {"first": showing.first.id, "second": showing.second.id}.get(choice)


def check_goal(goal: int, repeats: float) -> None:
    """Refuse numbers of votes that nobody can give.

    Raises:
        RequestError: one is out of range.
    """
    if goal < 1:
        raise RequestError(f"--goal is {goal}; expected at least 1 vote.")
    if not 0 <= repeats <= 0.5:
        raise RequestError(f"--repeats is {repeats:g}; expected a share of the votes from 0 to 0.5.")


def _check_pairs(votes: VoteFile) -> None:
    """Refuse a file of votes without a pair.

    Raises:
        RequestError: no prompt has two images.
    """
    images = votes.candidates()
    prompts = {image.prompt for image in images}
    if len(images) == len(prompts):
        counted = f"{len(images)} image{'s' * (len(images) != 1)}"
        found = f"of its {counted}, no two have the same prompt" if images else "it has no images"
        raise RequestError(
            f"There is nothing to compare in {votes.folder}: {found}. Name generators, or folders of pictures of the "
            "same prompts: dipp vote --generators emoji-onestep,emoji-unet-onestep --prompts emoji-heldout"
        )
