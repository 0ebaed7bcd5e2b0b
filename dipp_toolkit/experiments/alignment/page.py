"""The page of an alignment by votes: what voters said of every round, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ...preferences.pair import Candidate
from ...preferences.vote_file import VoteFile
from ...report.templates import template
from ...utils.atomic import write_text
from ...utils.images import data_address, to_uint8
from ...utils.messages import number_text

if TYPE_CHECKING:
    from .rounds import Round
    from .settings import AlignSettings

PAGE = "align.html"
SHOWN = 8
"""Prompts whose images before and after are shown."""
LARGEST = 192


def write_page(settings: AlignSettings, rounds: Sequence[Round]) -> Path:
    """Write `align.html`, one file that loads nothing.

    Args:
        settings: of the alignment.
        rounds: that are finished.
    """
    page = template(__package__, "align.html.jinja").render(
        settings=settings,
        start=settings.trained.generator,
        rounds=[
            {"round": one, "pictures": pictures(settings.out / f"round-{one.number}" / "comparison")} for one in rounds
        ],
        percent=lambda value: number_text(100 * value, ".0f"),
        last=_last(settings, rounds),
    )
    path = settings.out / PAGE
    write_text(path, page)
    return path


def _last(settings: AlignSettings, rounds: Sequence[Round]) -> str:
    """Why there is no further round."""
    if not rounds:
        return "No round is finished."
    if rounds[-1].verdict == "level":
        return (
            "By these votes, voters cannot tell new from old; a smaller difference would take more of them to be seen."
        )
    if rounds[-1].verdict == "worse":
        return "The last training made it worse, so the generator from before it stays."
    if len(rounds) < settings.rounds:
        return f"{len(rounds)} of {settings.rounds} rounds are finished."
    every = "The round is" if len(rounds) == 1 else f"All {len(rounds)} rounds are"
    return f"{every} finished, and voters still prefer the new generator: more rounds may help."


def pictures(folder: Path) -> list[dict[str, str]]:
    """Images of the first prompts that were compared, before and after, each as a `data:` address."""
    with VoteFile.open(folder) as votes:
        by_prompt: dict[str, dict[str, Candidate]] = {}
        for image in votes.candidates():
            by_prompt.setdefault(image.prompt, {}).setdefault(image.maker, image)
        both = [(prompt, makers) for prompt, makers in by_prompt.items() if len(makers) == 2]
        return [
            {"prompt": prompt, **{maker: _small(image) for maker, image in makers.items()}}
            for prompt, makers in both[:SHOWN]
        ]


def _small(image: Candidate) -> str:
    picture = Image.fromarray(to_uint8(image.picture.read()[None])[0])
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    return data_address(picture, "png")
