"""What `dipp align` does: ask people on a page, or a reward in their place, and go through the rounds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dipp_toolkit.config import TrainConfig
from dipp_toolkit.errors import Interrupted, RequestError
from dipp_toolkit.experiments.alignment.rounds import AlignResult, align
from dipp_toolkit.experiments.alignment.settings import AlignSettings, preflight_alignment
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.voting.session import Session
from dipp_toolkit.experiments.voting.simulation import answer_all
from dipp_toolkit.preferences.simulated import SimulatedVoter, check_noise
from dipp_toolkit.protocols import close
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.paths import user_path

from ..terminal.output import print_json, print_line, quiet_stdout
from ..terminal.work_progress import bench_progress
from .vote import WAYS


@dataclass(frozen=True, kw_only=True)
class AlignRequest:
    """The words of the command line; None for what was not given."""

    base: TrainConfig
    rounds: int
    votes: int
    compared: int
    voters: int
    prompt_count: int
    per_prompt: int
    beside: str | None
    repeats: float
    picking: str
    backbone: str
    simulate: str | None
    noise: float
    seed: int
    port: int
    browser: bool
    out: Path
    quiet: bool

    def settings(self) -> AlignSettings:
        """What the toolkit is asked for.

        Raises:
            RequestError: a number is out of range or a name is unknown.
        """
        if self.voters < 1:
            raise RequestError(f"--voters is {self.voters}; expected at least 1.")
        if self.simulate is not None and self.voters > 1:
            raise RequestError("--simulate is one voter; leave --voters out.")
        if self.picking not in WAYS:
            raise RequestError(unknown_name("way of picking pairs", self.picking, WAYS))
        if self.simulate is not None:
            check_noise(self.noise)
        people = "people" if self.voters == 1 else f"{self.voters} people"
        return AlignSettings(
            base=self.base,
            out=user_path(self.out),
            rounds=self.rounds,
            votes=self.votes,
            compared=self.compared,
            prompts=self.prompt_count,
            per_prompt=self.per_prompt,
            beside=parse_entries(self.beside, {}) if self.beside else (),
            repeats=self.repeats,
            picking=self.picking,
            fit={"backbone": self.backbone},
            voters=people if self.simulate is None else f"{self.simulate}, erring in {self.noise:g} of the votes",
            simulate=self.simulate,
            seed=self.seed,
        )


class Simulated:
    """A reward that answers.

    Args:
        voter: a reward as one.
    """

    def __init__(self, voter: SimulatedVoter):
        self.voter = voter

    def ask(self, session: Session, what: str) -> None:
        """Answer until the goal is reached."""
        answer_all(session, self.voter)


@dataclass(frozen=True)
class OnPage:
    """People who answer on a page of this machine.

    Attributes:
        voters: how many have to reach the goal.
        port: of the page.
        browser: show it in this machine's browser.
    """

    voters: int
    port: int
    browser: bool

    def ask(self, session: Session, what: str) -> None:
        """Serve the page until so many voters have reached the goal.

        Raises:
            Interrupted: somebody stopped it before.
        """
        from dipp_toolkit.experiments.voting.serve import has_browser, open_page, run_page

        if self._done(session):
            return
        listening, address = open_page(session.votes.folder, self.port)
        print_line(f"{what} {session.goal} votes of {self.voters} voter{'s' * (self.voters != 1)}, here: {address}")
        try:
            run_page(
                session, listening, address, browser=self.browser and has_browser(), done=lambda: self._done(session)
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"Stopped; every vote is kept in {session.votes.folder}. Go on with the same command."
            ) from None

    def _done(self, session: Session) -> bool:
        names = {comparison.voter for comparison in session.votes.comparisons()}
        return sum(session.finished(name) for name in names) >= self.voters


class Stages:
    """Says on stderr which part of which round is at work, and passes the progress of images on."""

    def __init__(self, inner: Any, quiet: bool):
        self.inner, self.quiet = inner, quiet

    def stage(self, number: int, what: str) -> None:
        if not self.quiet:
            print_line(f"Round {number}: {what}", file=sys.stderr)

    def begin(self, what: str, total: int) -> None:
        self.inner.begin(what, total)

    def advance(self, count: int) -> None:
        self.inner.advance(count)


@contextmanager
def _voters(request: AlignRequest) -> Iterator[Simulated | OnPage]:
    if request.simulate is None:
        from dipp_toolkit.experiments.voting.serve import check_packages

        check_packages()
        yield OnPage(request.voters, request.port, request.browser)
        return
    reward = load_reward(request.simulate)
    try:
        yield Simulated(SimulatedVoter(reward, request.noise, request.seed, label=request.simulate))
    finally:
        close(reward)


def run(request: AlignRequest, as_json: bool, dry: bool) -> int:
    """Go through the rounds and say what came of them; or, dry, say what would be done.

    Returns:
        The exit code.

    Raises:
        DippError: as `align` does.
    """
    settings = request.settings()
    if dry:
        from ..terminal.tables import print_preflight

        print_preflight(preflight_alignment(settings), as_json)
        return 0
    # The page's address is for whoever is at the terminal, unless the result alone is to stand on stdout.
    apart = nullcontext() if request.simulate is None and not as_json else quiet_stdout()
    with _voters(request) as voters, bench_progress(request.quiet) as inner, apart:
        result = align(settings, voters, Stages(inner, request.quiet))
    if as_json:
        print_json(described(result))
        return 0
    for one in result.rounds:
        print_line(one.sentence)
    print_line(f"{result.page}  the rounds, with pictures")
    print_line(f"{result.generator}  the generator that voters prefer")
    return 0


def described(result: AlignResult) -> dict[str, Any]:
    """What came of an alignment, for JSON."""
    return {
        "folder": str(result.folder),
        "page": str(result.page),
        "generator": result.generator,
        "rounds": [{**asdict(one), "verdict": one.verdict} for one in result.rounds],
    }
