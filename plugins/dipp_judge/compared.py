"""The images that a judge compares with: one of each prompt, in a folder."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.evaluation.image_files import read_image
from dipp_toolkit.prompts.files import read_prompt_file
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import to_uint8
from dipp_toolkit.utils.messages import shown

from .question import Pixels

MOST_KEPT = 256
"""Images in memory: 200 MB of those with 512 pixels a side."""
BESIDE = ("prompts.json", "prompts.jsonl", "metadata.jsonl")


class Compared:
    """A folder of images with a file of their prompts.

    Args:
        folder: with one of `BESIDE`, which names an image for each prompt.

    Raises:
        RequestError: there is no such file, or it names no images.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        beside = next((folder / name for name in BESIDE if (folder / name).is_file()), None)
        if beside is None:
            raise RequestError(
                f"The folder {folder} has no {BESIDE[0]}, which says whose image is whose; make it with dipp generate "
                f"--out {folder} --json > {folder / BESIDE[0]}"
            )
        prompts = read_prompt_file(beside, of_images=True)
        self.files = {prompt.text: folder / Path(prompt.file).name for prompt in prompts.prompts if prompt.file}
        if not self.files:
            raise RequestError(f"{beside} names no images; expected a mapping from files to prompts.")
        missing = next((path for path in self.files.values() if not path.is_file()), None)
        if missing is not None:
            raise RequestError(f"{beside} names {missing.name}, and there is no such image in {folder}.")
        self._read = lru_cache(maxsize=MOST_KEPT)(_pixels)

    @cached_property
    def digest(self) -> str:
        """Of all images with their prompts."""
        return digest_of({prompt: file_digest(path) for prompt, path in self.files.items()})

    def of(self, prompt: str) -> Pixels:
        """The image of a prompt.

        Raises:
            RunError: there is none.
        """
        if prompt not in self.files:
            raise RunError(f"The folder {self.folder} has no image of the prompt '{shown(prompt)}' to compare with.")
        return self._read(self.files[prompt])


def _pixels(path: Path) -> Pixels:
    pixels: Pixels = np.ascontiguousarray(to_uint8(read_image(path).pixels[None])[0])
    return pixels
