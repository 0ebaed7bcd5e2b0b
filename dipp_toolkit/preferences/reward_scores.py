"""What rewards say of images that were voted on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from ..evaluation.image_files import ImageFile, read_image
from ..evaluation.scoring import PromptedFile, score_files
from ..protocols import Reward
from .pair import Candidate, Comparison, PictureFile


def images_of(comparisons: Iterable[Comparison]) -> list[Candidate]:
    """Every image that was voted on, once, in the order of their ids."""
    images = {image.id: image for comparison in comparisons for image in (comparison.first, comparison.second)}
    return [images[number] for number in sorted(images)]


def score_candidates(
    rewards: Mapping[str, Reward],
    candidates: Iterable[Candidate],
    *,
    batch: int = 16,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, dict[int, float]], list[str]]:
    """Score images as `dipp score` does: those of one size together, few in memory at a time.

    Args:
        rewards: by name; they are where `device` is.
        candidates: the images.
        batch: images at a time.
        device: where images go before they are scored.
        progress: called with the number of images scored so far.

    Returns:
        By reward and an image's id its score, and notices about how images were read.

    Raises:
        RequestError: an image is missing or damaged.
        RunError: a reward raised, or did not return one finite score for each image.
    """
    images = list(candidates)
    pictures = {_place(image): image.picture for image in images}

    def read(place: Path) -> ImageFile:
        picture = pictures[place]
        return read_image(place) if isinstance(picture, PictureFile) else ImageFile(place, picture.read())

    files = [PromptedFile(_place(image), image.prompt) for image in images]
    scored, notices = score_files(rewards, files, batch=batch, device=device, progress=progress, read=read)
    rows = list(zip(images, scored, strict=True))
    return {name: {image.id: row.scores[name] for image, row in rows} for name in rewards}, notices


def _place(candidate: Candidate) -> Path:
    """The image's file, or what it is called in messages."""
    picture = candidate.picture
    return picture.path if isinstance(picture, PictureFile) else Path(f"image number {candidate.id}")
