"""`score`: images by rewards, images of any kind: files, folders, pictures or tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import RequestError
from ..evaluation.image_files import ImageFile, list_images, natural_key, read_image, read_picture
from ..evaluation.image_prompts import match_prompts, without_grid
from ..evaluation.scoring import PromptedFile, score_files
from ..protocols import close, moved
from ..rewards.groups import refuse_alone
from ..rewards.loading import load_reward
from ..utils.device import choose_device
from ..utils.messages import number_text, short_name
from ..utils.paths import user_path
from ..utils.python_words import python_words
from ..utils.tables import as_table
from .parts import GivenParts
from .prompt_texts import named_prompts


@dataclass(frozen=True, repr=False)
class Scores(Mapping[str, list[float]]):
    """What rewards say of images: `scores["hps"]` has one number an image, in their order.

    Attributes:
        columns: numbers by reward.
        images: what each image is called.
        prompts: what each was scored for.
        notices: sentences about how images and prompts were read.
    """

    columns: Mapping[str, list[float]]
    images: Sequence[str]
    prompts: Sequence[str]
    notices: Sequence[str] = ()

    def __getitem__(self, reward: str) -> list[float]:
        return self.columns[reward]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def means(self) -> dict[str, float]:
        """The mean of each reward over the images."""
        return {name: sum(column) / len(column) for name, column in self.columns.items()}

    @cached_property
    def table(self) -> Any:
        """One row an image: a `pandas.DataFrame`, or without pandas a list of mappings."""
        return as_table(
            [
                {"image": image, "prompt": prompt} | {name: column[row] for name, column in self.columns.items()}
                for row, (image, prompt) in enumerate(zip(self.images, self.prompts, strict=True))
            ],
            "image",
        )

    def __repr__(self) -> str:
        means = ", ".join(f"{short_name(name)} {number_text(mean)}" for name, mean in self.means.items())
        return f"<Scores of {len(self.images)} image{'s' * (len(self.images) != 1)}, means: {means}>"


def score(
    images: Any,
    rewards: Any,
    prompts: Any = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    device: str = "auto",
) -> Scores:
    """Score images, as `dipp score` does.

        >>> picture = generate("emoji-onestep", "fox on blue")[0]
        >>> score(picture, "emoji-clip", "fox on blue")
        <Scores of 1 image, means: emoji-clip ...>

    Args:
        images: a `PIL` picture, a tensor `(batch, 3, height, width)` in [0, 1], a file, a folder, or a list of
            pictures, tensors `(3, height, width)`, files and folders.
        rewards: names or callables, in a list or by name.
        prompts: one text for all images, a list with one an image, a file or a prompt set. Of files it may be left out
            where their names or a file beside them say it.
        options: of rewards, by name.
        batch_size: images at a time.
        device: as in the settings.

    Raises:
        RequestError: a reward, an image or the prompts cannot be used.
        RunError: a reward failed.
    """
    with python_words():
        objects = GivenParts()
        names = objects.rewards_named(rewards)
        if not names:
            raise RequestError("No reward is given; expected names or callables, as in score(images, ['hps']).")
        content, notices = _gathered(images, prompts)
        chosen, where = dict(options or {}), choose_device(device)
        with objects.lent():
            loaded = {name: load_reward(name, **chosen.get(name, {})) for name in names}
            try:
                for name, reward in loaded.items():
                    refuse_alone(name, reward, "score()")
                placed = {name: moved(reward, where) for name, reward in loaded.items()}
                files = [PromptedFile(Path(one.label), one.prompt) for one in content]
                pixels = iter(content)
                scored, remarks = score_files(
                    placed, files, batch=batch_size, device=where, read=lambda path: next(pixels).read()
                )
            finally:
                for reward in loaded.values():
                    close(reward)
        columns = {name: [row.scores[name] for row in scored] for name in names}
        return Scores(columns, [one.label for one in content], [one.prompt for one in content], [*notices, *remarks])


@dataclass(frozen=True)
class _Prompted:
    """An image of any kind with its prompt."""

    label: str
    prompt: str
    image: Any

    def read(self) -> ImageFile:
        if isinstance(self.image, Path):
            return read_image(self.image)
        if isinstance(self.image, Tensor):
            return ImageFile(Path(self.label), self.image.detach().float().cpu())
        return read_picture(self.image, self.label)


def _gathered(images: Any, prompts: Any) -> tuple[list[_Prompted], list[str]]:
    """Every image with its prompt, and notices about where prompts came from.

    Raises:
        RequestError: an image or a prompt is missing, or something is no image.
    """
    single = [images] if isinstance(images, str | Path) or _is_picture(images) else images
    if isinstance(single, Tensor):
        single = [single] if single.ndim == 3 else list(single)
    if not isinstance(single, Sequence) or not len(single):
        raise RequestError(f"There are no images to score: got {type(images).__name__}; expected pictures or files.")
    items: list[Any] = []
    for number, one in enumerate(single):
        if isinstance(one, str | Path):
            items += _files(user_path(one))
        elif (isinstance(one, Tensor) and one.ndim == 3 and len(one) == 3) or _is_picture(one):
            items.append(one)
        else:
            shape = f" of shape {tuple(one.shape)}" if isinstance(one, Tensor) else ""
            raise RequestError(
                f"Image {number} is a {type(one).__name__}{shape}; expected a picture, a file, or a tensor "
                "(3, height, width)."
            )
    labels = [str(one) if isinstance(one, Path) else f"image {number}" for number, one in enumerate(items)]
    texts, notice = _prompts_of(items, prompts)
    joined = [_Prompted(label, text, one) for label, text, one in zip(labels, texts, items, strict=True)]
    return joined, [notice] if notice else []


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(without_grid(list_images(path)), key=natural_key)
    if not path.exists():
        raise RequestError(f"There is no image or folder {path}.")
    return [path]


def _prompts_of(items: Sequence[Any], prompts: Any) -> tuple[list[str], str]:
    if prompts is None:
        if not all(isinstance(one, Path) for one in items):
            raise RequestError("There are no prompts for the images; give one text, or a list with one an image.")
        return match_prompts(items, "the images", None, None)
    if isinstance(prompts, str) and named_prompts(prompts) is None:
        return [prompts] * len(items), ""
    texts = named_prompts(prompts)
    assert texts is not None
    if len(texts) != len(items):
        raise RequestError(
            f"There are {len(texts)} prompts and {len(items)} images; expected one prompt for each image, or one text."
        )
    return texts, ""


def _is_picture(given: Any) -> bool:
    from PIL import Image

    return isinstance(given, Image.Image)
