"""What `dipp vote` does: gather images, then ask people on a page or a reward that stands for one."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dipp_toolkit.errors import RequestError
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.experiments.bench.run import Listener
from dipp_toolkit.experiments.voting.candidates import Folders, from_generators, noises, parse_folders, sample
from dipp_toolkit.experiments.voting.session import Session, check_goal
from dipp_toolkit.experiments.voting.simulation import answer_all
from dipp_toolkit.preferences.pair import Candidate, Comparison
from dipp_toolkit.preferences.picking import PairPicker
from dipp_toolkit.preferences.simulated import SimulatedVoter, check_noise
from dipp_toolkit.preferences.vote_file import FILE, VoteFile, voter_name
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.utils.assignments import parse_options
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.paths import check_folder_place, user_path

from ..terminal.output import print_json, print_line, quiet_stdout
from ..terminal.work_progress import bench_progress
from .reward.loading import close, load_rewards, reward_names

WAYS = ("adaptive", "random")


@dataclass(frozen=True, kw_only=True)
class VoteRequest:
    """The words of the command line; None for what was not given."""

    votes: Path
    generators: str | None
    images: str | None
    prompts: str | None
    prompt: str | None
    count: int | None
    per_prompt: int
    goal: int
    repeats: float
    picking: str
    simulate: str | None
    noise: float
    voter: str | None
    seed: int
    batch_size: int
    port: int
    browser: bool
    assignments: list[str]
    device: str
    quiet: bool

    @property
    def adds(self) -> bool:
        """Whether images are to be added."""
        return self.generators is not None or self.images is not None

    @property
    def generator_options(self) -> dict[str, dict[str, Any]]:
        """Those of `--set`, by label."""
        return parse_options(self.assignments, ("generator", "reward"))["generator"]

    @property
    def reward_assignments(self) -> list[str]:
        """Those of `--set` that are a reward's."""
        return [text for text in self.assignments if text.lstrip().startswith("reward.")]

    def check(self) -> None:
        """Refuse what cannot be done, before anything is made.

        Raises:
            RequestError: as a sentence.
        """
        if self.picking not in WAYS:
            raise RequestError(unknown_name("way of picking pairs", self.picking, WAYS))
        if self.count is not None and self.count < 1:
            raise RequestError(f"--count is {self.count}; expected at least 1.")
        if self.prompt is not None and self.images is None:
            raise RequestError("--prompt is the prompt of the pictures in --images; name their folders too.")
        if self.prompt is not None and self.prompts is not None and self.generators is None:
            raise RequestError("Give the prompts by --prompts FILE or by --prompt TEXT, not by both.")
        if self.prompts is not None and not self.adds:
            raise RequestError(
                "--prompts says what generators draw or images show; name these with --images, or --generators."
            )
        if self.generators is not None and self.prompts is None and self.images is None:
            raise RequestError("Name the prompts that the generators draw, as in --prompts emoji-heldout.")
        if self.generator_options and self.generators is None:
            raise RequestError("--set gives options to a generator, but --generators names none.")
        if self.reward_assignments and self.simulate is None:
            raise RequestError("--set gives options to a reward, but --simulate names none.")
        noises(self.per_prompt, self.seed)
        check_goal(self.goal, self.repeats)
        check_noise(self.noise)
        if self.batch_size < 1:
            raise RequestError(f"--batch-size is {self.batch_size}; expected at least 1.")
        if self.voter is not None:
            voter_name(self.voter)
        place = user_path(self.votes)
        folder = place.parent if place.name == FILE else place
        check_folder_place(folder, "folder of votes")
        if not self.adds and not (folder / FILE).is_file():
            raise RequestError(
                f"There are no votes in {folder} yet. Name what is to be compared: dipp vote --generators "
                "emoji-onestep,emoji-unet-onestep --prompts emoji-heldout, or dipp vote --images a=FOLDER,b=FOLDER"
            )


def hold_vote(request: VoteRequest, as_json: bool) -> None:
    """Add images where some are named, then ask.

    Raises:
        DippError: as a sentence.
    """
    request.check()
    if request.simulate is None:
        from dipp_toolkit.experiments.voting.serve import check_packages

        check_packages()
    with VoteFile.open(request.votes, create=request.adds) as votes:
        if request.adds:
            with quiet_stdout():
                add_images(request, votes)
        session = Session(
            votes, _picker_of(request), goal=request.goal, repeats=request.repeats, seed=request.seed
        )  # fmt: skip
        if request.simulate is None:
            _serve(request, session, as_json)
        else:
            _simulate(request, session, as_json)


def _picker_of(request: VoteRequest) -> Any:
    def make(images: Sequence[Candidate], comparisons: Sequence[Comparison]) -> PairPicker:
        return PairPicker(images, comparisons, seed=request.seed, way=request.picking)

    return make


def add_images(request: VoteRequest, votes: VoteFile) -> int:
    """Make and read the images that are named, and add those that are not there yet.

    Returns:
        How many were new.

    Raises:
        RequestError: a generator, a folder or the prompts cannot be used.
    """
    entries = parse_entries(request.generators, request.generator_options) if request.generators is not None else []
    folders = None
    if request.images is not None:
        of_folders = None if entries else request.prompts
        folders = Folders(parse_folders(request.images), of_folders, request.prompt)
    if entries and request.prompts is not None:
        named = load_prompts(request.prompts).prompts
    else:
        named = folders.prompts if folders is not None else []
    prompts = sample(named, request.count, request.seed)
    seeds = noises(request.per_prompt, request.seed)
    with bench_progress(request.quiet) as listener:
        new = votes.add(_all_images(request, entries, folders, prompts, seeds, listener))
    for notice in folders.notices if folders is not None else ():
        print_line(notice, file=sys.stderr)
    return new


def _all_images(
    request: VoteRequest,
    entries: Sequence[Any],
    folders: Folders | None,
    prompts: Sequence[Any],
    seeds: Sequence[int],
    listener: Listener,
) -> Any:
    if folders is not None:
        yield from folders.read(prompts, listener)
    yield from from_generators(
        entries, prompts, seeds, batch=request.batch_size, device=request.device, listener=listener
    )


def _serve(request: VoteRequest, session: Session, as_json: bool) -> None:
    """Serve the page until Ctrl-C."""
    from dipp_toolkit.experiments.voting.serve import has_browser, open_page, run_page

    folder = session.votes.folder
    listening, address = open_page(folder, request.port)
    link = f"{address}?voter={quote(request.voter, safe='')}" if request.voter is not None else address
    port = listening.getsockname()[1]
    images = len(session.votes.candidates())
    if as_json:
        print_line(json.dumps({"url": link, "port": port, "votes": str(folder), "images": images}))
    else:
        print_line(f"{images} images to compare; votes are kept in {folder}. Vote here: {link}")
        print_line(
            f"From another machine: ssh -L {port}:127.0.0.1:{port} and this machine's name, then the same link there. "
            "Ctrl-C ends it."
        )
    try:
        run_page(session, listening, link, browser=request.browser and not as_json and has_browser())
    except KeyboardInterrupt:  # how a vote ends
        if not as_json:
            print_line(_ended(session))


def _ended(session: Session) -> str:
    counts: dict[str, int] = {}
    for comparison in session.votes.comparisons():
        counts[comparison.voter] = counts.get(comparison.voter, 0) + 1
    counted = ", ".join(f"{count} of {voter}" for voter, count in counts.items())
    total = sum(counts.values())
    kept = f"{total} vote{'s' * (total != 1)}" + (f" ({counted})" if counts else "")
    folder = session.votes.folder
    return f"{kept} {'is' if total == 1 else 'are'} kept in {folder}. Go on with: dipp vote {shlex.quote(str(folder))}"


def _simulate(request: VoteRequest, session: Session, as_json: bool) -> None:
    """Have a reward answer until the goal is reached, and print what came of it."""
    (name,) = reward_names(request.simulate or "")
    with quiet_stdout():
        rewards = load_rewards([name], request.reward_assignments)
        try:
            voter = SimulatedVoter(
                rewards[name], request.noise, request.seed, voter_name(request.voter or "simulated"), label=name
            )
            answer_all(session, voter)
        finally:
            close(rewards)
    progress = session.progress(voter.name)
    wins = wins_of([one for one in session.votes.comparisons() if one.voter == voter.name])
    result = {
        "votes": str(session.votes.folder),
        "voter": voter.name,
        "given": progress.votes,
        "goal": progress.goal,
        "repeats": progress.repeats,
        "consistent": progress.consistent,
        "makers": wins,
    }
    if as_json:
        print_json(result)
        return
    print_line(f"{progress.votes} of {progress.goal} votes by {voter.name} are kept in {session.votes.folder}.")
    if not progress.done:
        print_line("There is no other pair: every pair of images of one prompt was compared.")
    if progress.repeats:
        print_line(f"Of {progress.repeats} pairs that were asked again, {progress.consistent} got the same answer.")
    for maker, (won, asked) in wins.items():
        print_line(f"  {maker or '(unknown)'}: preferred in {won:g} of {asked} comparisons with others")


def wins_of(comparisons: Sequence[Comparison]) -> dict[str, tuple[float, int]]:
    """By maker, how often its image was preferred to another maker's, ties a half, and how often it was compared."""
    wins: dict[str, tuple[float, int]] = {}
    for one in comparisons:
        if one.repeat or one.first.maker == one.second.maker:
            continue
        for image, won in ((one.first, one.outcome), (one.second, 1 - one.outcome)):
            before, asked = wins.get(image.maker, (0.0, 0))
            wins[image.maker] = (before + won, asked + 1)
    return dict(sorted(wins.items(), key=lambda item: -item[1][0] / item[1][1]))
