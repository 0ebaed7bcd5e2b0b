"""Images by content: a PNG for each fingerprint, prompt and seed, made once and read ever after."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError
from ...utils.disk_errors import AGAIN, reason_of, way_on
from ...utils.fingerprint import digest_of
from ...utils.images import Images
from ...utils.jsonl import read_lines

LOG = "made"


def image_key(fingerprint: str, prompt: str, seed: int) -> str:
    """What an image is stored under: SHA-256, 40 hexadecimal digits, of all that decides it."""
    return digest_of([fingerprint, prompt, seed])[:40]


@dataclass(frozen=True)
class ImageStore:
    """A folder of PNG files, two levels deep, each of which appears whole or not at all.

    Attributes:
        folder: holds the images and `made-<process>.jsonl`, a line for each image that was ever generated into it.
        process: this process's number among those that share the work.
    """

    folder: Path
    process: int = 0

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without an image, each once, in order."""
        return [key for key in dict.fromkeys(keys) if not self.path(key).is_file()]

    def add(self, keys: Sequence[str], images: Images) -> None:
        """Note and write images, rounded to 8 bits.

        Raises:
            RunError: the folder cannot be written.
        """
        from PIL import Image

        from ...utils.images import write_png

        pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{LOG}-{self.process}.jsonl").open("a", encoding="utf-8") as log:
                log.writelines(json.dumps({"key": key}) + "\n" for key in keys)
            for key, image in zip(keys, pixels, strict=True):
                path = self.path(key)
                path.parent.mkdir(exist_ok=True)
                write_png(Image.fromarray(image), path, shared=True)
        except OSError as error:
            way = way_on(error, AGAIN)
            raise RunError(f"Cannot write the images in {self.folder}: {reason_of(error)}. {way}") from error

    def read(self, keys: Sequence[str]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1], float32.

        Raises:
            RunError: an image is missing, damaged or of another size than the others; the message names it.
        """
        import numpy as np
        from PIL import Image

        images = []
        for key in keys:
            path = self.path(key)
            try:
                with Image.open(path, formats=("PNG",)) as image:
                    images.append(torch.from_numpy(np.array(image.convert("RGB"))))
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                raise RunError(
                    f"The stored image {path} cannot be read: {error}. Delete it; it is generated again."
                ) from error
            if images[-1].shape != images[0].shape:
                raise RunError(f"The stored image {path} has another size than {self.path(keys[0])}.")
        return torch.stack(images).permute(0, 3, 1, 2).float().div(255)

    def made(self) -> list[str]:
        """The keys of all images ever generated into this store, repeated where one was generated twice."""
        keys = []
        for path in sorted(self.folder.glob(f"{LOG}-*.jsonl")):
            for _, line in read_lines(path):
                try:
                    keys.append(str(json.loads(line)["key"]))
                except (ValueError, LookupError, TypeError, RecursionError):
                    continue  # cut off by a kill
        return keys
