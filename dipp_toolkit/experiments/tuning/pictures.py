"""A folder of pictures with their captions, checked and brought to a reference's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...errors import RequestError
from ...evaluation.image_files import list_images, read_image, say_notes
from ...evaluation.image_prompts import match_prompts, without_grid
from ...utils.content_digests import file_digest
from ...utils.fingerprint import digest_of
from ...utils.images import Images
from ...utils.paths import user_path

FEWEST = 4
"""Pictures below which an adapter learns them by heart and no style."""
FEW = 10
CAPTION = ".txt"
"""Ending of a caption's file beside its picture, as most trainers of adapters have it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures to tune to.

    Attributes:
        paths: of the files, in natural order.
        captions: one a picture.
        notices: what somebody should know of how they were found.
    """

    paths: tuple[Path, ...]
    captions: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @classmethod
    def find(cls, folder: str | Path, captions: str | None = None, caption: str | None = None) -> Pictures:
        """The pictures directly in a folder and their captions.

        Captions are, in this order: `caption`, which is all pictures'; the file `captions`; `NAME.txt` beside each
        `NAME.png`; a file of prompts among the pictures (`metadata.jsonl`, `prompts.csv`, ...); names that `dipp
        generate` gave.

        Raises:
            RequestError: there are too few pictures, or one has no caption.
        """
        place = user_path(folder)
        paths = without_grid(list_images(place))
        if len(paths) < FEWEST:
            raise RequestError(
                f"{place} holds {len(paths)} picture{'s' * (len(paths) != 1)}; expected at least {FEWEST}, and better "
                "20 or more: of fewer, the pictures themselves are learned and not what they have in common."
            )
        beside = [path.with_suffix(CAPTION) for path in paths]
        if captions is None and caption is None and any(path.is_file() for path in beside):
            texts, notice = [_caption_in(path) for path in beside], ""
        else:
            texts, notice = _matched(paths, place, captions, caption)
        notices = [notice] if notice else []
        if len(paths) < FEW:
            notices.append(f"{len(paths)} pictures are few: what they show may be learned by heart with their style.")
        return cls(tuple(paths), tuple(texts), tuple(notices))

    def digest(self) -> str:
        """What a training on them depends on: their bytes and their captions."""
        return digest_of(
            [[file_digest(path), caption] for path, caption in zip(self.paths, self.captions, strict=True)]
        )

    def read(self, size: tuple[int, int]) -> tuple[Images, list[str]]:
        """Their pixels at a reference's size: scaled so that they cover it, the middle kept, by Lanczos's filter.

        Args:
            size: height and width.

        Returns:
            Images in [0, 1], `(pictures, 3, height, width)`, and notices.

        Raises:
            RequestError: a file is damaged or too large; one sentence with its path.
        """
        images, small, notes = [], 0, []
        for path in self.paths:
            file = read_image(path)
            small += file.pixels.shape[1] < size[0] or file.pixels.shape[2] < size[1]
            notes.append(file.notes)
            images.append(covering(file.pixels, size))
        notices = say_notes(notes)
        if small:
            notices.append(
                f"Of {len(images)} pictures, {small} are smaller than the reference's {size[1]} x {size[0]} pixels and "
                "were enlarged, which makes them soft."
            )
        return torch.stack(images), notices


def covering(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture `(3, h, w)` scaled so that it covers a size, `(height, width)`, the middle kept."""
    if tuple(pixels.shape[1:]) == tuple(size):
        return pixels
    picture = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    fitted = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)
    flat = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return flat.reshape(size[0], size[1], 3).permute(2, 0, 1).float() / 255


def _matched(paths: list[Path], place: Path, captions: str | None, caption: str | None) -> tuple[list[str], str]:
    """Captions as `dipp score` finds prompts, and a notice where one is due.

    Raises:
        RequestError: a picture has none.
    """
    try:
        return match_prompts(paths, str(place), captions, caption)
    except RequestError as error:
        # What it says of a file that is named is right; its ways out of having none are other commands'.
        if captions is not None or caption is not None or "There are no prompts" not in str(error):
            raise RequestError(str(error).replace("--prompts FILE", "--captions FILE")) from error
        raise RequestError(
            f"The pictures in {place} have no captions, {paths[0].name} for one. Put a file {paths[0].stem}.txt beside "
            "it and one beside each other, or metadata.jsonl with file_name and text, or give --captions FILE, one a "
            "line, or one for all with --caption TEXT."
        ) from error


def _caption_in(path: Path) -> str:
    """The caption of one picture.

    Raises:
        RequestError: it is missing, empty or no text.
    """
    try:
        text = " ".join(path.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        raise RequestError(
            f"There is no caption {path}: other pictures of the folder have one beside them, so each needs one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The caption {path} cannot be read; expected text in UTF-8.") from error
    if not text:
        raise RequestError(f"The caption {path} is empty; expected what its picture shows.")
    return text
