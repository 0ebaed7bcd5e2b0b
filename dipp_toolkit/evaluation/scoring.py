"""Scores of image files: read, batched by size, scored by every reward, summed up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..errors import DippError
from ..protocols import Reward
from ..rewards.remote.proxy import ProxyReward
from ..rewards.scores import ask
from ..utils.images import Images
from .image_files import ImageFile, read_image, say_notes
from .intervals import Interval, mean_interval

Pixels = Images | Sequence[Float[Tensor, "3 height width"]]
"""Images of one size, in a tensor or one by one."""

WAITING = 4
"""Batches' worth of images of different sizes that wait in memory before an incomplete batch is scored."""


@dataclass(frozen=True)
class PromptedFile:
    """An image file and the prompt that it was made for.

    Attributes:
        group: what it is compared as, such as its folder.
    """

    path: Path
    prompt: str
    group: str = ""


@dataclass(frozen=True)
class ScoredFile:
    """What every reward says of an image."""

    file: PromptedFile
    scores: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """`{"file", "prompt", "scores"}`, and the group where there is one."""
        group = {"folder": self.file.group} if self.file.group else {}
        return {"file": str(self.file.path), **group, "prompt": self.file.prompt, "scores": dict(self.scores)}


@dataclass(frozen=True)
class Summary:
    """What a reward says of a group of images.

    Attributes:
        interval: mean and 95 % interval.
        drawn: over what the interval is, `prompts` or `images`.
        lowest: the image with the lowest score.
        highest: the image with the highest score.
    """

    interval: Interval
    drawn: str
    lowest: ScoredFile
    highest: ScoredFile


@dataclass
class _Batches:
    """Images that wait for others of their size."""

    size: int
    waiting: dict[tuple[int, int], list[tuple[int, ImageFile]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, index: int, image: ImageFile) -> list[tuple[int, ImageFile]]:
        """Take an image; returns a batch where one is due, and else nothing."""
        height, width = image.pixels.shape[1:]
        self.waiting[height, width].append((index, image))
        if len(self.waiting[height, width]) >= self.size:
            return self.waiting.pop((height, width))
        if sum(map(len, self.waiting.values())) >= WAITING * self.size:
            return self.waiting.pop(max(self.waiting, key=lambda key: len(self.waiting[key])))
        return []


def score_files(
    rewards: Mapping[str, Reward],
    files: Sequence[PromptedFile],
    *,
    batch: int = 16,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    read: Callable[[Path], ImageFile] = read_image,
) -> tuple[list[ScoredFile], list[str]]:
    """Score image files; images of one size are scored together, and few are in memory at a time.

    Args:
        rewards: by name; they are where `device` is.
        files: the images.
        batch: images at a time.
        device: where images go before they are scored.
        progress: called with the number of images scored so far.
        read: reads the image of a path.

    Returns:
        The scores, in the order of `files`, and notices about how images were read.

    Raises:
        RequestError: a file is no image that can be read.
        RunError: a reward raised, or did not return one finite score for each image; the message names the file.
    """
    rows_by_index: dict[int, ScoredFile] = {}
    notes: list[tuple[str, ...]] = []
    batches = _Batches(batch)

    def finish(due: Sequence[tuple[int, ImageFile]]) -> None:
        pixels, here = [image.pixels for _, image in due], [files[index] for index, _ in due]
        columns = {name: score_batch(reward, name, pixels, here, device).tolist() for name, reward in rewards.items()}
        for row, (index, _) in enumerate(due):
            rows_by_index[index] = ScoredFile(files[index], {name: column[row] for name, column in columns.items()})
        if progress is not None:
            progress(len(rows_by_index))

    for index, file in enumerate(files):
        image = read(file.path)
        notes.append(image.notes)
        due = batches.add(index, image)
        if due:
            finish(due)
    for waiting in batches.waiting.values():
        finish(waiting)
    return [rows_by_index[index] for index in range(len(files))], say_notes(notes)


def score_batch(
    reward: Reward,
    name: str,
    pixels: Pixels,
    files: Sequence[PromptedFile],
    device: torch.device | str | None = None,
) -> Float64[Tensor, " batch"]:
    """Scores of one batch, float64 on the CPU.

    Args:
        reward: where `device` is.
        name: its name, for messages.
        pixels: images of one size, in [0, 1]; they stay as they are, whatever the reward does to its own.
        files: that they were read from.
        device: where images go before they are scored; they stay where they are unless given.

    Raises:
        RunError: the reward raised, or did not return one finite score for each image; the message names the first
            image at which it does so by itself, or else the batch's first.
    """
    try:
        return _scores(reward, name, pixels, files, device)
    except DippError as error:
        raise type(error)(f"{str(error).rstrip('.')} ({_culprit(reward, name, pixels, files, device)}).") from error


@torch.no_grad()
def _scores(
    reward: Reward, name: str, pixels: Pixels, files: Sequence[PromptedFile], device: torch.device | str | None
) -> Tensor:
    images = torch.stack(list(pixels)).to(device=device)  # of its own: the next reward must see what is in the files
    return ask(name, reward, images, [file.prompt for file in files]).cpu().double()


def _culprit(
    reward: Reward, name: str, pixels: Pixels, files: Sequence[PromptedFile], device: torch.device | str | None
) -> str:
    """The image that a reward failed at, found by showing it one at a time."""
    if len(files) == 1:
        return f"image: {files[0].path}"
    if not isinstance(reward, ProxyReward):  # one that does not answer would not answer so many times
        for index, file in enumerate(files):
            try:
                _scores(reward, name, pixels[index : index + 1], [file], device)
            except DippError:
                return f"first image: {file.path}"
    return f"images: {files[0].path} and {len(files) - 1} more"


def summarise(scored: Sequence[ScoredFile], reward: str) -> Summary:
    """Mean, interval and extremes of one reward over a group of images.

    The interval is over prompts, as in the rest of the toolkit, and a prompt with several images enters by their
    mean; where all images have one prompt, it is over images.

    Args:
        scored: at least one image.
        reward: its name.
    """
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for row in scored:
        by_prompt[row.file.prompt].append(row.scores[reward])
    values = [row.scores[reward] for row in scored]
    unit = "prompts" if len(by_prompt) > 1 else "images"
    if unit == "prompts":
        values = [sum(scores) / len(scores) for scores in by_prompt.values()]
    interval = mean_interval(torch.tensor(values, dtype=torch.float64))
    ordered = sorted(scored, key=lambda row: row.scores[reward])
    return Summary(interval, unit, ordered[0], ordered[-1])
