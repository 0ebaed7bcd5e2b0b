"""A dataset's votes added to a folder of votes, each once, however often it is imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..utils.messages import short_name
from ..utils.paths import user_path
from .loading import read_preferences
from .pair import OUTCOMES, Candidate, Comparison, PictureFile
from .vote_file import FILE, LONGEST_NAME, NewCandidate, Showing, VoteFile, digest_of, voter_name

if TYPE_CHECKING:
    from datasets import Dataset

CHOICES = {outcome: choice for choice, outcome in OUTCOMES.items()}
ELSEWHERE = "elsewhere"
"""What a repetition repeats whose first answer is not there."""


@dataclass(frozen=True)
class Imported:
    """What was added to a folder of votes.

    Attributes:
        folder: of votes.
        images: new ones.
        votes: new ones.
        known: votes that had been imported before.
        notices: what was left out and why.
    """

    folder: Path
    images: int
    votes: int
    known: int
    notices: list[str] = field(default_factory=list)


def import_votes(
    dataset: str | Path | Dataset,
    votes: str | Path,
    *,
    voter: str = "",
    check: Callable[[list[Comparison]], None] | None = None,
) -> Imported:
    """Add a dataset's votes, with their voters, ties and repetitions.

    A vote that is there already, of the same voter on the same two images, on the same sides and with the same outcome,
    is not added again, so that an import that was interrupted can be run again. All votes are added, or none.

    Args:
        dataset: whatever `read_preferences` reads.
        votes: a folder of votes, or its `votes.sqlite`; made where there is none.
        voter: a name for votes of which the dataset names no voter; its own name where empty.
        check: is given the votes before anything is written, and may refuse them.

    Raises:
        RequestError: the dataset cannot be read, an image of it is missing or damaged, a voter's name cannot be one,
            or the folder is something else.
        RunError: the disk does not take it.
    """
    preferences = read_preferences(dataset)
    name = voter or (short_name(str(dataset).partition("?")[0]) if isinstance(dataset, str | Path) else "dataset")
    unnamed = voter_name(name[:LONGEST_NAME])
    for one in {comparison.voter for comparison in preferences.comparisons} - {""}:
        voter_name(one)
    if check is not None:
        check(preferences.comparisons)
    folder = user_path(votes)
    if (folder / FILE).exists() or folder.name == FILE or not folder.exists() or not any(folder.iterdir()):
        with VoteFile.open(folder, create=True) as file:
            return _add(preferences.comparisons, file, unnamed, preferences.notices)
    raise RequestError(
        f"The folder {folder} holds something else than votes; name one of votes, or one that is missing."
    )


def _add(comparisons: list[Comparison], file: VoteFile, unnamed: str, notices: list[str]) -> Imported:
    images = list(
        {id(one): one for comparison in comparisons for one in (comparison.first, comparison.second)}.values()
    )
    digests: dict[int, str] = {}

    def read() -> Iterator[NewCandidate]:
        for image in images:
            pixels = image.picture.read()
            digests[image.id] = digest_of(pixels)
            yield NewCandidate(image.prompt, image.maker, pixels, image.category)

    new_images = file.add(read())
    numbers = {(one.prompt, one.maker, _digest(one)): one.id for one in file.candidates()}
    number_of = {image.id: numbers[image.prompt, image.maker, digests[image.id]] for image in images}
    repeating = {voter_name(comparison.voter or unnamed) for comparison in comparisons if comparison.repeat}
    added = known = same = 0
    with file.all_or_none():
        # Looked at inside: another import may have been at work until now.
        there = Counter(_key(one, one.first.id, one.second.id, one.voter) for one in file.comparisons())
        asked = {(showing.voter, showing.pair): showing.id for showing in _voted(file, repeating)}
        for comparison in comparisons:
            first, second = number_of[comparison.first.id], number_of[comparison.second.id]
            if first == second:  # two files with the same pixels
                same += 1
                continue
            voter = voter_name(comparison.voter or unnamed)
            key = _key(comparison, first, second, voter)
            if there[key]:
                there[key] -= 1
                known += 1
                continue
            pair = (voter, frozenset((first, second)))
            repeated = asked.get(pair, ELSEWHERE) if comparison.repeat else ""
            showing = file.show(voter, first, second, repeated)
            file.vote(showing.id, CHOICES[comparison.outcome])
            asked.setdefault(pair, showing.id)
            added += 1
    told = [f"Left out: {same:,} vote{'s' * (same != 1)} between two images of the same pixels."] if same else []
    return Imported(file.folder, new_images, added, known, [*notices, *told])


def _voted(file: VoteFile, voters: Iterable[str]) -> Iterator[Showing]:
    """The showings that some voters voted on, of a voter the latest first."""
    for voter in voters:
        for showing, _ in reversed(file.votes_of(voter)):
            yield showing


def _digest(image: Candidate) -> str:
    return image.picture.path.stem if isinstance(image.picture, PictureFile) else ""


def _key(comparison: Comparison, first: int, second: int, voter: str) -> tuple[str, int, int, float, bool]:
    return (voter, first, second, comparison.outcome, comparison.repeat)
