"""Image files as what rewards look at: RGB in [0, 1], whatever the file holds; and files that say their prompts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..contained import user_path
from ..errors import RequestError, first_line
from ..naming import shown
from ..roles import Prompt

PROGRAMS_AND_STUBS = {"EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR"}
"""Formats that Pillow hands to another program, or only knows the beginning of."""

TRANSPARENT, ANIMATED = "transparent", "animated"
NOTES = {
    TRANSPARENT: "{count} transparent, shown on white",
    ANIMATED: "{count} with several frames, of which the first counts",
}


@dataclass(frozen=True)
class ImageFile:
    """An image that was read.

    Attributes:
        path: where it lies.
        pixels: in [0, 1], float32.
        notes: what somebody should know of how it was read, of `NOTES`.
    """

    path: Path
    pixels: Float[Tensor, "3 height width"]
    notes: tuple[str, ...] = ()


def read_image(path: Path) -> ImageFile:
    r"""Read one image of any format that Pillow reads by itself.

    Grey becomes RGB by repetition, a palette is looked up, CMYK and others are converted as Pillow does. Sixteen-bit
    grey is divided by 65535. Transparency is composited over white, $a \cdot rgb + (1 - a)$. The EXIF orientation is
    applied, so that the image stands as every viewer shows it. Of an animation the first frame is read. Colour profiles
    are not applied.

    Raises:
        RequestError: the file is missing, empty, damaged, truncated, no image, too large, or of a kind whose range of
            values is unknown; one sentence with the path.
    """
    try:
        if path.is_file() and not path.stat().st_size:
            raise RequestError(f"The image {path} is empty.")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata says nothing about the pixels
            with Image.open(path, formats=formats()) as image:
                animated = bool(getattr(image, "is_animated", False))
                image.seek(0)
                image.load()
                upright = ImageOps.exif_transpose(image)
                pixels, transparent = _pixels(upright, path)
    except RequestError:
        raise
    except FileNotFoundError:
        raise RequestError(f"There is no image {path}.") from None
    except UnidentifiedImageError:
        raise RequestError(f"The file {path} is no image that can be read here.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(
            f"The image {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down first."
        ) from None
    except Exception as error:  # decoders of damaged files raise anything
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RequestError(f"The image {path} cannot be read: {reason}.") from error
    notes = tuple(note for note, true in ((TRANSPARENT, transparent), (ANIMATED, animated)) if true)
    return ImageFile(path, torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), notes)


def _pixels(image: Image.Image, path: Path) -> tuple[np.ndarray, bool]:
    """`(height, width, 3)` in [0, 1], float32, and whether some of it was transparent."""
    if image.mode == "F":
        raise RequestError(
            f"The image {path} holds floating-point values, whose range is unknown; save it with 8 or 16 bits."
        )
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.float64)
        if grey.min() < 0 or grey.max() > 65535:
            raise RequestError(
                f"The image {path} holds 32-bit values, whose range is unknown; save it with 8 or 16 bits."
            )
        return np.repeat((grey / 65535).astype(np.float32)[..., None], 3, axis=2), False
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")).astype(np.float32) / 255, False
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGBA")).convert("RGBA")
    rgba = np.asarray(straight).astype(np.float32) / 255
    alpha = rgba[..., 3:]
    return alpha * rgba[..., :3] + (1 - alpha), bool((alpha < 1).any())


def say_notes(files: Sequence[tuple[str, ...]]) -> list[str]:
    """The notes of many images, each kind counted and said once."""
    counts = {note: sum(note in one for one in files) for note in NOTES}
    return [f"Of {len(files)} images, {NOTES[note].format(count=count)}." for note, count in counts.items() if count]


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order; hidden files and other files are passed over.

    Raises:
        RequestError: the folder is missing, cannot be read, or holds no image.
    """
    try:
        entries = list(folder.iterdir())
    except FileNotFoundError:
        raise RequestError(f"There is no folder {folder}.") from None
    except OSError as error:
        raise RequestError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    found = [
        path
        for path in entries
        if not path.name.startswith(".") and path.suffix.lower() in extensions() and path.is_file()
    ]
    if not found:
        deeper = " Its folders are not searched; name them." if any(path.is_dir() for path in entries) else ""
        raise RequestError(f"The folder {folder} holds no image.{deeper}")
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts `2.png` before `10.png`, without regard to case."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], str(path)


@cache
def formats() -> list[str]:
    """Names of the formats that are read."""
    Image.init()
    return [name for name in Image.OPEN if name not in PROGRAMS_AND_STUBS]


@cache
def extensions() -> frozenset[str]:
    """How names of images end: `.png` and others."""
    readable = set(formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable)


def read_prompts(source: str) -> Sequence[Prompt]:
    """Prompts of images, in order; those of a file that names images have them in `file`.

    Args:
        source: a file, as `dipp_toolkit.prompt_files` reads it, or the name of a prompt set.

    Raises:
        RequestError: it cannot be read, holds no prompts, or has two for one image.
    """
    from ..loading import load_prompts
    from ..prompt_files import read_prompt_file
    from ..python_files import is_python_name

    path = user_path(source)
    is_file = path.is_file() and not is_python_name(source)
    prompts = read_prompt_file(path, of_images=True).prompts if is_file else load_prompts(source).prompts
    first: dict[str, str] = {}
    for prompt in prompts:
        if prompt.file and first.setdefault(prompt.file, prompt.text) != prompt.text:
            raise RequestError(f"The prompts in {source} cannot be used: {shown(prompt.file)} has two prompts.")
    return prompts
