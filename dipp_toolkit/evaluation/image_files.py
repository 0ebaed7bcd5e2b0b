"""Image files as tensors for rewards: RGB in [0, 1] from every format that Pillow reads, and the prompts of files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import RequestError, first_line
from ..protocols import Prompt
from ..utils.messages import shown
from ..utils.paths import user_path

PROGRAMS_AND_STUBS = {"EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR"}
"""Formats that Pillow hands to another program, or only knows the beginning of."""

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""
SIXTEEN_BITS_IN_I = ("PNG", "PPM")
"""Formats whose grey of 16 bits some versions of Pillow hand out as whole numbers of 32."""
LEVELS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey of few bits by."""

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

    Grey becomes RGB by repetition, a palette is looked up, CMYK and others are converted as Pillow does. Grey of more
    than 8 bits is divided by the largest number of its bits, 65535 of 16; of colours with 16 bits Pillow keeps the
    upper 8. Transparency is composited over white, $a \cdot rgb + (1 - a)$. The EXIF orientation is
    applied, so that the image stands as every viewer shows it. Of an animation the first frame is read. Colour profiles
    are not applied.

    Raises:
        RequestError: the file is missing, empty, damaged, truncated, no image, too large, or of a kind whose range of
            values is unknown; one sentence with the path.
    """
    return _read(path, path, lambda: path.is_file() and not path.stat().st_size)


def decode_image(content: bytes, name: str) -> ImageFile:
    """`read_image` of a file's bytes.

    Args:
        content: the file.
        name: of the image, for messages.

    Raises:
        RequestError: as `read_image`.
    """
    return _read(BytesIO(content), Path(name), lambda: not content)


def read_picture(picture: Image.Image, name: str) -> ImageFile:
    """`read_image` of a picture of Pillow that is open already.

    Args:
        picture: of any mode.
        name: of the image, for messages.

    Raises:
        RequestError: its range of values is unknown.
    """
    picture.load()
    pixels, transparent = _pixels(ImageOps.exif_transpose(picture), _Stored.of(picture), Path(name))
    return ImageFile(Path(name), torch.from_numpy(pixels), (TRANSPARENT,) if transparent else ())


def _read(source: Path | BytesIO, path: Path, is_empty: Callable[[], bool]) -> ImageFile:
    try:
        if is_empty():
            raise RequestError(f"The image {path} is empty.")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata says nothing about the pixels
            with Image.open(source, formats=formats()) as image:
                animated = bool(getattr(image, "is_animated", False))
                image.seek(0)
                stored = _Stored.of(image)
                image.load()
                upright = ImageOps.exif_transpose(image)
                pixels, transparent = _pixels(upright, stored, path)
    except RequestError:
        raise
    except FileNotFoundError:
        raise RequestError(f"There is no image {path}.") from None
    except UnidentifiedImageError:
        raise RequestError(f"The file {path} is not a readable image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(
            f"The image {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down first."
        ) from None
    except Exception as error:  # decoders of damaged files raise anything
        reason = getattr(error, "strerror", None) or first_line(error)
        raise RequestError(f"The image {path} cannot be read: {reason}.") from error
    notes = tuple(note for note, true in ((TRANSPARENT, transparent), (ANIMATED, animated)) if true)
    return ImageFile(path, torch.from_numpy(pixels), notes)


@dataclass(frozen=True)
class _Stored:
    """How a file holds its numbers, as far as Pillow does not see to it.

    Attributes:
        kind: Pillow's name of the format.
        bits: of a number; 0 where nothing says it.
        signed: whether numbers may be negative.
        white_is_zero: whether grey is stored upside down.
        raw: Pillow's name of the layout.
    """

    kind: str
    bits: int = 0
    signed: bool = False
    white_is_zero: bool = False
    raw: str = ""

    @classmethod
    def of(cls, image: Image.Image) -> _Stored:
        """What an image says that is open and not loaded."""
        tags: Any = getattr(image, "tag_v2", {})
        tiles = getattr(image, "tile", None)  # which a picture that is of no file lacks
        layout = tiles[0].args if tiles else ""  # type: ignore[attr-defined]
        raw = layout if isinstance(layout, str) else layout[0] if layout else ""
        bits, formats = (tags.get(number) for number in (BITS_PER_SAMPLE, SAMPLE_FORMAT))
        return cls(
            str(image.format),
            int(bits[0]) if bits else 0,
            bool(formats) and 2 in formats,
            tags.get(PHOTOMETRIC) == 0,
            str(raw),
        )


def _pixels(image: Image.Image, stored: _Stored, path: Path) -> tuple[np.ndarray, bool]:
    """`(3, height, width)` in [0, 1], float32, and whether some of it was transparent."""
    if image.mode == "F":
        raise RequestError(
            f"The image {path} has floating-point values, whose range is unknown; save it with 8 or 16 bits."
        )
    if stored.signed or (image.mode == "I" and stored.kind not in SIXTEEN_BITS_IN_I):
        what = "signed values" if stored.signed else "32-bit values"
        raise RequestError(f"The image {path} has {what}, whose range is unknown; save it with 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow's own conversion would clip at 255
        return _deep_grey(image, stored)
    transparent = image.info.get("transparency")
    if transparent is not None and stored.raw == "RGB;16B":  # Pillow compares its 16 bits with the upper 8 of the image
        raise RequestError(
            f"The image {path} has 16 bits and one transparent colour; save it with an alpha channel, or with 8 bits."
        )
    if isinstance(transparent, int) and stored.raw in LEVELS:  # of 2 or 4 bits, while the image was spread to 8
        image.info["transparency"] = transparent * LEVELS[stored.raw]
    if not image.has_transparency_data:
        return _planes(np.asarray(image.convert("RGB"))), False
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGBA")).convert("RGBA")
    rgba = _planes(np.asarray(straight))
    alpha = rgba[3:]
    return alpha * rgba[:3] + (1 - alpha), bool((alpha < 1).any())


def _planes(pixels: np.ndarray) -> np.ndarray:
    """Bytes `(height, width, channels)` as `(channels, height, width)` in [0, 1], float32."""
    # Bytes are turned before they are widened: a quarter of the memory is read in strides.
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
    planes /= 255
    return planes


def _deep_grey(image: Image.Image, stored: _Stored) -> tuple[np.ndarray, bool]:
    numbers = np.asarray(image).astype(np.float64)
    grey = numbers / (2 ** (stored.bits if 8 < stored.bits < 16 else 16) - 1)
    if stored.white_is_zero:
        grey = 1 - grey
    transparent = image.info.get("transparency")
    hidden = numbers == transparent if isinstance(transparent, int) else np.zeros(numbers.shape, bool)
    grey[hidden] = 1
    return np.repeat(grey.astype(np.float32)[None], 3, axis=0), bool(hidden.any())


def say_notes(files: Sequence[tuple[str, ...]]) -> list[str]:
    """The notes of many images, each kind once, with its count."""
    counts = {note: sum(note in notes for notes in files) for note in NOTES}
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
    images = [
        path
        for path in entries
        if not path.name.startswith(".") and path.suffix.lower() in extensions() and path.is_file()
    ]
    if not images:
        deeper = " Its subfolders are not searched; name them." if any(path.is_dir() for path in entries) else ""
        raise RequestError(f"The folder {folder} contains no images.{deeper}")
    return sorted(images, key=natural_key)


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
        source: a file, as `dipp_toolkit.prompts.files` reads it, or the name of a prompt set.

    Raises:
        RequestError: it cannot be read, holds no prompts, or has two for one image.
    """
    from ..prompts.files import read_prompt_file
    from ..prompts.loading import load_prompts
    from ..utils.imports import is_python_name

    path = user_path(source)
    is_file = path.is_file() and not is_python_name(source)
    prompts = read_prompt_file(path, of_images=True).prompts if is_file else load_prompts(source).prompts
    first: dict[str, str] = {}
    for prompt in prompts:
        if prompt.file and first.setdefault(prompt.file, prompt.text) != prompt.text:
            raise RequestError(f"The prompts in {source} cannot be used: {shown(prompt.file)} has two prompts.")
    return prompts
