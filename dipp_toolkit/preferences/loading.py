"""Preference data by its place: votes of this toolkit, or a dataset of somebody's."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..utils.paths import user_path
from .pair import Comparison
from .vote_file import FILE, VoteFile


def load_comparisons(place: str | Path) -> list[Comparison]:
    """What voters said, in order; see `VoteFile` for a folder of votes.

    Args:
        place: a folder of votes, or its `votes.sqlite`.

    Raises:
        RequestError: it is not there, is something else, or holds no vote.
    """
    folder = user_path(place)
    with VoteFile.open(folder) as votes:
        comparisons = votes.comparisons()
    if not comparisons:
        raise RequestError(
            f"Nobody has voted in {folder.parent if folder.name == FILE else folder} yet: dipp vote {place}"
        )
    return comparisons
