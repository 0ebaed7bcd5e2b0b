"""Where `dipp generate` writes: a folder of numbered pictures with a grid, or one PNG."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.evaluation.image_prompts import GRID

PROMPTS = "prompts.json"
"""The prompt of each picture in the folder, by file name: what `dipp score` reads."""


def check_out(out: Path) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises:
        RequestError: a folder stands where a PNG is to be, or a file where a folder is to be.
    """
    if out.suffix.lower() == ".png" and out.is_dir():
        raise RequestError(f"Cannot write the picture {out}: it is a folder.")
    for part in (out.parent, *out.parent.parents) if out.suffix.lower() == ".png" else (out, *out.parents):
        if part.exists() and not part.is_dir():
            raise RequestError(f"Cannot write to {out}: {part} is a file.")


def slug(prompt: str) -> str:
    """A prompt as the harmless part of a file name: at most 40 letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-") or "image"


def write_pictures(
    images: Float[Tensor, "batch 3 height width"] | Iterable[Float[Tensor, "batch 3 height width"]],
    prompts: Sequence[str],
    out: Path,
) -> list[Path]:
    """Write the pictures, so that each is there whole or not at all.

    A batch is written before the next is asked for; what stays in memory is the grid, whose images are shrunk where it
    would be longer than 4,200 pixels.

    Args:
        images: in [0, 1], all of them or batches one after the other.
        prompts: one for each image; they name the files.
        out: a folder, which is created and gets the prompts as well, or a `.png` file, which becomes a grid of all.

    Returns:
        The pictures that were written, the grid last.

    Raises:
        RunError: the disk does not take it.
    """
    from dipp_toolkit.utils.images import Grid, save_image

    folder, single = (out.parent, out.name) if out.suffix.lower() == ".png" else (out, None)
    digits = max(3, len(str(len(prompts))))
    names = [] if single else [f"{number:0{digits}}-{slug(prompt)}.png" for number, prompt in enumerate(prompts, 1)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
            grid, pending = Grid(len(prompts)), iter(names)
            for batch in [images] if isinstance(images, Tensor) else images:
                grid.add(batch)
                for image, name in zip(batch, pending, strict=False):
                    save_image(image, Path(scratch) / name)
            grid.save(Path(scratch) / (single or GRID))
            if not single:
                (Path(scratch) / PROMPTS).write_text(
                    json.dumps(dict(zip(names, prompts, strict=True)), indent=1, ensure_ascii=False), encoding="utf-8"
                )
                (Path(scratch) / PROMPTS).replace(folder / PROMPTS)
            return [(Path(scratch) / name).replace(folder / name) for name in (*names, single or GRID)]
    except OSError as error:
        raise RunError(f"Cannot write the pictures to {out}: {error.strerror or error}.") from error
