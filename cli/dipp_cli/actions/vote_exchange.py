"""What `dipp vote --export` and `--import` do: votes as a dataset of preference data, and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.dataset_export import export_votes
from dipp_toolkit.preferences.dataset_import import import_votes
from dipp_toolkit.preferences.direction import check_direction
from dipp_toolkit.preferences.pair import Comparison

from ..terminal.output import print_json, print_line
from .reward.loading import close, load_rewards


@dataclass(frozen=True, kw_only=True)
class ExchangeRequest:
    """The words of the command line; None for what was not given. `asks` are flags that ask people instead."""

    votes: Path
    export: Path | None
    layout: str
    dataset: str | None
    voter: str
    reward: str | None
    assignments: Sequence[str]
    asks: Sequence[str]

    def check(self) -> None:
        """Refuse what cannot be done together.

        Raises:
            RequestError: as a sentence.
        """
        if self.dataset is None and self.reward is not None:
            raise RequestError("--check-with looks at what --import reads; there is no --import.")
        flag = "--export" if self.export is not None else "--import"
        if self.export is not None and self.dataset is not None:
            raise RequestError("--export writes a dataset and --import reads one; give one of them at a time.")
        if self.asks:
            raise RequestError(f"{flag} asks nobody; leave {' and '.join(self.asks)} out, or run the two one by one.")


def exchange(request: ExchangeRequest, as_json: bool) -> int:
    """Write or read a dataset.

    Raises:
        RequestError: as `export` and `import_` do.
    """
    request.check()
    if request.export is not None:
        return export(request.votes, request.export, as_json, layout=request.layout)
    return import_(
        str(request.dataset),
        request.votes,
        as_json,
        voter=request.voter,
        reward=request.reward,
        assignments=request.assignments,
    )


def export(votes: str | Path, folder: str | Path, as_json: bool, *, layout: str = "chosen") -> int:
    """Write votes as a dataset, and say where.

    Args:
        votes: a folder of votes, or a dataset in any known layout.
        folder: of the dataset; missing or empty.
        as_json: print one JSON object.
        layout: of the columns, see `export_votes`.

    Returns:
        The exit code.

    Raises:
        RequestError: nobody has voted, an image is missing, or the folder is in use.
        RunError: the disk does not take it.
    """
    written = export_votes(votes, folder, layout=layout)
    if as_json:
        print_json({"folder": str(written.folder), "rows": dict(written.rows)})
        return 0
    for split, count in written.rows.items():
        print_line(f"{_counted(count, 'row')} in the split {split}")
    print_line(f'{written.folder}  the dataset: datasets.load_dataset("{written.folder}")')
    return 0


def import_(
    dataset: str,
    votes: str | Path,
    as_json: bool,
    *,
    voter: str = "",
    reward: str | None = None,
    assignments: Sequence[str] = (),
) -> int:
    """Add a dataset's votes to a folder of votes, and say how many.

    Args:
        dataset: whatever `load_comparisons` reads.
        votes: the folder, made where there is none.
        as_json: print one JSON object.
        voter: a name for votes of which the dataset names no voter.
        reward: one that says whether preferred and rejected images look swapped; then nothing is imported.
        assignments: of the reward's options.

    Returns:
        The exit code.

    Raises:
        RequestError: the dataset cannot be read, an image is missing or damaged, or the reward says that preferred and
            rejected images look swapped.
        RunError: the disk does not take it.
    """
    said: list[str] = []

    def check(comparisons: list[Comparison]) -> None:
        if reward is None:
            return
        rewards = load_rewards([reward], list(assignments))
        try:
            direction = check_direction(comparisons, rewards[reward], f"the reward '{reward}'")
        finally:
            close(rewards)
        if direction.swapped:
            raise RequestError(f"{direction.sentence()} Nothing was imported; without --check-with it is.")
        said.append(direction.sentence())

    added = import_votes(dataset, votes, voter=voter, check=check)
    if as_json:
        print_json(
            {
                "folder": str(added.folder),
                "images": added.images,
                "votes": added.votes,
                "known": added.known,
                "notices": [*added.notices, *said],
            }
        )
        return 0
    for notice in [*added.notices, *said]:
        print_line(notice[0].upper() + notice[1:], file=sys.stderr)
    known = f"; {_counted(added.known, 'vote')} had been imported before" if added.known else ""
    print_line(f"{added.folder}  {_counted(added.votes, 'vote')} and {_counted(added.images, 'image')} added{known}")
    return 0


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
