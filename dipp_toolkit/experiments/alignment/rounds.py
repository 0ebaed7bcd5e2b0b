"""The rounds: vote on the generator's images, fit a reward, train by it, vote on new against old.

Everything that was done is in the folder: a round that was stopped anywhere goes on there with the same command.
Votes of all rounds are fitted together; those on new against old are on other prompts and are never fitted, so that a
win rate is on prompts that neither the reward nor the training has seen.
"""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...config import TrainConfig
from ...errors import Interrupted, RequestError
from ...evaluation.intervals import Interval
from ...preferences.fit.run import fit_reward
from ...preferences.pair import Candidate, Comparison, joined
from ...preferences.picking import PairPicker
from ...preferences.vote_file import FILE, NewCandidate, VoteFile
from ...preferences.win_rate import win_rate
from ...protocols import Prompt
from ...rewards.fitted_folders import FIT
from ...training.run import train
from ...utils.atomic import write_text
from ...utils.device import choose_device
from ...utils.folder_lock import locked
from ...utils.json_files import read_json
from ...utils.json_forms import read_form
from ...utils.messages import shown
from ...utils.paths import below
from ..bench.entries import BenchEntry
from ..bench.run import Listener
from ..voting.candidates import from_generators, noises
from ..voting.session import Session
from .duels import Duels
from .page import write_page
from .settings import AFTER, BEFORE, CURRENT, AlignSettings, prompts_of, without

STATE, PROMPTS = "align.json", "prompts.json"


@runtime_checkable
class AlignListener(Listener, Protocol):
    """Told how the rounds go on."""

    def stage(self, number: int, what: str) -> None:
        """A round's part begins, or was done already."""


@runtime_checkable
class Voters(Protocol):
    """Whoever answers: people on a page, or rewards in their place."""

    def ask(self, session: Session, what: str) -> None:
        """Return once every voter has reached the session's goal, or no pair is left.

        Args:
            session: asks and keeps the votes.
            what: the votes are for, as a sentence.

        Raises:
            Interrupted: the voters were stopped before.
        """


@dataclass(frozen=True)
class Round:
    """What came of a round.

    Attributes:
        number: from 1.
        generator: the run's folder.
        votes: that the reward was fitted to, those of earlier rounds among them.
        accuracy: of the fitted reward on held-out prompts, with its interval; None where too few could be held out.
        agreement: of voters who were asked again, or with each other; None where nobody was.
        win_rate: of the new generator over the one before, with its interval over prompts.
        compared: votes that it is of.
    """

    number: int
    generator: str
    votes: int
    accuracy: Interval | None
    agreement: Interval | None
    win_rate: Interval
    compared: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `level` where voters cannot tell."""
        return "better" if self.win_rate.low > 0.5 else "worse" if self.win_rate.high < 0.5 else "level"

    @property
    def sentence(self) -> str:
        """What the voters said of the new generator."""
        share = self.win_rate
        told = f"{100 * share.mean:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}] of {self.compared} votes"
        return {
            "better": f"Round {self.number}: voters prefer the new generator, in {told}.",
            "worse": f"Round {self.number}: voters prefer the generator from before; the new one has {told}.",
            "level": f"Round {self.number}: voters cannot tell new from old; the new one has {told}.",
        }[self.verdict]


@dataclass(frozen=True)
class _State:
    """What `align.json` holds.

    Attributes:
        key: of the settings.
        voters: who vote.
        rounds: that are finished.
        contents: digests of the files and folders that the settings name; None of an earlier version, which noted none.
    """

    key: str
    voters: str
    rounds: list[Round]
    contents: dict[str, str] | None = None

    def check_contents(self, settings: AlignSettings) -> None:
        """Refuse to go on where what a name stands for has been exchanged.

        Raises:
            RequestError: it names the first.
        """
        then, now = self.contents or {}, settings.contents()
        changed = next((name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)), None)
        if changed is not None:
            raise RequestError(
                f"The rounds in {settings.out} were begun with another content of {shown(changed)}; they go on with "
                "that alone. Put it back, or name another folder with --out."
            )


@dataclass(frozen=True)
class _FittedVotes:
    fitted: int
    held_out: int


@dataclass(frozen=True)
class _Agreement:
    accuracy: Interval


@dataclass(frozen=True)
class _Fit:
    """What a round takes from the `fit.json` of its reward."""

    votes: _FittedVotes
    held_out: _Agreement | None
    voters_agreement: Interval | None


@dataclass(frozen=True)
class AlignResult:
    """What an alignment leaves.

    Attributes:
        folder: of all rounds.
        rounds: that were finished.
        generator: the last one that voters preferred to the one before; the first where none was.
        page: of the rounds.
    """

    folder: Path
    rounds: Sequence[Round]
    generator: str
    page: Path


@dataclass(frozen=True)
class RoundFolder:
    """Where a round's parts are."""

    path: Path

    @property
    def votes(self) -> Path:
        """Votes on the generator's images."""
        return self.path / "votes"

    @property
    def reward(self) -> Path:
        """The fitted reward."""
        return self.path / "reward"

    @property
    def run(self) -> Path:
        """The training."""
        return self.path / "run"

    @property
    def comparison(self) -> Path:
        """Votes on new against old."""
        return self.path / "comparison"

    @property
    def trained(self) -> bool:
        """Whether the training is complete, its summary and its report being written last."""
        return all((self.run / name).is_file() for name in ("summary.json", "report.html"))


def align(settings: AlignSettings, voters: Voters, listener: AlignListener) -> AlignResult:
    """Vote, fit, train and compare, round after round, until voters cannot tell new from old.

    Args:
        settings: what is asked for; the folder of an alignment that was begun with the same goes on.
        voters: who answer.
        listener: told how it goes on.

    Raises:
        RequestError: a setting cannot be used, the folder is of an alignment with others, or votes cannot be fitted.
        RunError: a training failed.
        Interrupted: a signal arrived; what was done is kept.
    """
    settings.check()
    _, held_out = prompts_of(settings, 1)  # refused before anybody votes
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"The folder {settings.out} cannot be made: {error.strerror or error}.") from error
    with locked(settings.out):
        return _align(settings, held_out, voters, listener)


def _align(settings: AlignSettings, held_out: Sequence[Prompt], voters: Voters, listener: AlignListener) -> AlignResult:
    state = _begun(settings)
    rounds = state.rounds
    generator = str(settings.trained.generator)
    for number in range(1, max(settings.rounds, len(rounds)) + 1):
        if len(rounds) >= number:
            listener.stage(number, "done already")
        else:
            state.check_contents(settings)
            part = _OneRound(settings, number, generator, voters, listener)
            rounds.append(part.go(prompts_of(settings, number)[0], held_out))
            _write(settings, state)
            write_page(settings, rounds)
        if rounds[number - 1].verdict != "better":
            break
        generator = rounds[number - 1].generator
    page = write_page(settings, rounds)
    return AlignResult(settings.out, rounds, generator, page)


@dataclass(frozen=True)
class _OneRound:
    """A round that is not finished."""

    settings: AlignSettings
    number: int
    generator: str
    voters: Voters
    listener: AlignListener

    @property
    def folder(self) -> RoundFolder:
        return _folder(self.settings, self.number)

    def go(self, prompts: Sequence[Prompt], held_out: Sequence[Prompt]) -> Round:
        """Its four parts."""
        self._vote(prompts)
        fitted = self._fit()
        self._train(held_out)
        compared = self._compare(held_out)
        return Round(
            self.number,
            str(self.folder.run),
            fitted.votes.fitted + fitted.votes.held_out,
            None if fitted.held_out is None else fitted.held_out.accuracy,
            fitted.voters_agreement,
            win_rate(compared, AFTER, BEFORE),
            len(compared),
        )

    def _vote(self, prompts: Sequence[Prompt]) -> None:
        settings, (own, *beside) = self.settings, (BenchEntry(CURRENT, self.generator), *self.settings.beside)
        self.listener.stage(self.number, f"votes on the images of {self.generator}")
        with self._votes(self.folder.votes, [own, *beside], prompts, settings.per_prompt) as votes:

            def pick(images: Sequence[Candidate], given: Sequence[Comparison]) -> PairPicker:
                return PairPicker(images, given, seed=settings.seed, way=settings.picking)

            session = Session(votes, pick, goal=settings.votes, repeats=settings.repeats, seed=settings.seed)
            self.voters.ask(session, f"Round {self.number}: which image is better?")

    def _compare(self, prompts: Sequence[Prompt]) -> list[Comparison]:
        settings = self.settings
        self.listener.stage(self.number, "votes on the new generator against the one before")
        entries = [BenchEntry(BEFORE, self.generator), BenchEntry(AFTER, str(self.folder.run))]
        each = math.ceil(settings.compared / len(prompts))
        with self._votes(self.folder.comparison, entries, prompts, each) as votes:

            def pick(images: Sequence[Candidate], given: Sequence[Comparison]) -> Duels:
                return Duels(images, settings.seed)

            session = Session(votes, pick, goal=settings.compared, repeats=0.0, seed=settings.seed)
            self.voters.ask(session, f"Round {self.number}: which image is better? New against old.")
            return votes.comparisons()

    def _votes(self, place: Path, entries: Sequence[BenchEntry], prompts: Sequence[Prompt], each: int) -> VoteFile:
        """A folder of votes with all its images, which are made once."""
        settings, made = self.settings, place / "images.json"
        wanted = {"prompts": [prompt.text for prompt in prompts], "makers": [entry.label for entry in entries]}
        votes = VoteFile.open(place, create=True)
        if not made.is_file() or read_json(made, then="Remove it; what is there of the images stays.") != wanted:
            images = from_generators(
                entries,
                prompts,
                noises(each, settings.seed + self.number),
                batch=settings.batch,
                device=settings.base.device,
                listener=self.listener,
            )
            votes.add(_not_there(images, votes.candidates()))
            write_text(made, json.dumps(wanted))
        return votes

    def _fit(self) -> _Fit:
        place = self.folder.reward
        if not (place / FIT).is_file():
            self.listener.stage(self.number, "a reward is fitted to the votes")
            earlier = [_folder(self.settings, number) for number in range(1, self.number + 1)]
            given = []
            for folder in earlier:
                with VoteFile.open(folder.votes / FILE) as votes:
                    given.append(votes.comparisons())
            device = choose_device(self.settings.base.device)
            fit_reward(joined(given), place, seed=self.settings.seed, device=device, **self.settings.fit)
        return read_form(place / FIT, _Fit, f"Remove {place}, and the reward is fitted to the votes again.")

    def _train(self, held_out: Sequence[Prompt]) -> None:
        if self.folder.trained:
            return
        others = without(held_out, self.settings)
        path = self.settings.out / PROMPTS
        if others is not None:
            write_text(path, json.dumps(others))
        begun = (self.folder.run / "config.yaml").is_file()
        self.listener.stage(self.number, "the training resumes" if begun else "a training by the reward")
        try:
            train(self.training(begun, str(self.settings.trained.prompts if others is None else path)))
        except Interrupted as stop:
            raise Interrupted(f"{stop} Or resume all rounds with the same dipp align command.") from None
        gc.collect()

    def training(self, resume: bool, prompts: str) -> TrainConfig:
        """The settings of the round's training."""
        complete = self.settings.trained
        rewards = {str(self.folder.reward): 1.0, **complete.rewards}
        return complete.model_copy(
            update={
                "generator": self.generator,
                "rewards": rewards,
                "prompts": prompts,
                "out": self.folder.run,
                "resume": resume,
            }
        )


def _not_there(images: Iterable[NewCandidate], there: Iterable[Candidate]) -> Iterator[NewCandidate]:
    """Images without those that were made before a stop; made on another device they may differ by a bit."""
    before = Counter((one.prompt, one.maker) for one in there)
    for image in images:
        if before[image.prompt, image.maker]:
            before[image.prompt, image.maker] -= 1
        else:
            yield image


def _begun(settings: AlignSettings) -> _State:
    """What was done in the folder.

    Raises:
        RequestError: it was done with other settings, or with other files under the same names.
    """
    path = settings.out / STATE
    if not path.is_file():
        state = _State(settings.key(), settings.voters, [], settings.contents())
        _write(settings, state)
        return state
    then = "Put it back as it was, or begin in another folder with --out."
    state = read_form(path, _State, then)
    if state.key != settings.key() or state.contents is None:
        raise RequestError(
            f"The rounds in {settings.out} were begun with other settings or prompts; they go on with those alone. "
            "Name another folder with --out, or give the same settings."
        )
    state.check_contents(settings)
    numbers = [one.number for one in state.rounds]
    if numbers != list(range(1, len(numbers) + 1)):
        raise RequestError(f"{path} is damaged: it has the rounds {numbers}; expected them from 1 on. {then}")
    # The run is there wherever the folder lies by now.
    rounds = [replace(one, generator=str(_folder(settings, one.number).run)) for one in state.rounds]
    return replace(state, rounds=rounds)


def _folder(settings: AlignSettings, number: int) -> RoundFolder:
    return RoundFolder(below(settings.out, f"round-{number}"))


def _write(settings: AlignSettings, state: _State) -> None:
    write_text(settings.out / STATE, json.dumps(asdict(state), indent=1))
