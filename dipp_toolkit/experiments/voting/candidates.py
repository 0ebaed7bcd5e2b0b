"""Where images to be voted on come from: generators that make them, and folders that hold them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import RequestError
from ...evaluation.image_files import list_images, natural_key, read_image, say_notes
from ...evaluation.image_prompts import match_prompts, without_grid
from ...preferences.vote_file import NewCandidate
from ...prompts.dataset import PromptList
from ...prompts.subsets import part_of
from ...protocols import Prompt
from ...utils.assignments import parse_names
from ...utils.device import choose_device
from ...utils.messages import shown
from ...utils.paths import user_path
from ..bench.entries import BenchEntry
from ..bench.run import Listener

NOISES_A_SEED = 1000
"""Noises of one seed have numbers of their own: two seeds share none where they have fewer a prompt."""


def noises(per_prompt: int, seed: int) -> tuple[int, ...]:
    """Numbers of the noises of every prompt; those of seed 0 are the bench's, from 1.

    Raises:
        RequestError: there are none, or too many.
    """
    if not 1 <= per_prompt <= NOISES_A_SEED:
        raise RequestError(f"--per-prompt is {per_prompt}; expected 1 to {NOISES_A_SEED} images of a generator.")
    if seed < 0:
        raise RequestError(f"--seed is {seed}; expected 0 or more.")
    return tuple(range(seed * NOISES_A_SEED + 1, seed * NOISES_A_SEED + 1 + per_prompt))


def from_generators(
    entries: Sequence[BenchEntry],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    *,
    batch: int,
    device: str,
    listener: Listener,
) -> Iterator[NewCandidate]:
    """Images of generators and references, made as a bench makes them: of the same noise for all with one latent shape.

    Args:
        entries: generators; their labels are the images' makers.
        prompts: each is drawn by all.
        seeds: of the noises of every prompt.
        batch: images at a time.
        device: `auto`, `cpu`, `cuda`, ...
        listener: told of the progress.

    Raises:
        RequestError: a generator cannot be used.
    """
    if batch < 1:
        raise RequestError(f"--batch-size is {batch}; expected at least 1.")
    chosen = choose_device(device)
    wanted = [(prompt, seed) for prompt in prompts for seed in seeds]
    for entry in entries:
        source = entry.source(chosen)
        source.prepare([prompt.text for prompt in prompts])
        listener.begin(f"images of {entry.label}", len(wanted))
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            images = source.images([prompt.text for prompt, _ in part], [seed for _, seed in part])
            for (prompt, _), image in zip(part, images, strict=True):
                yield NewCandidate(prompt.text, entry.label, image, prompt.category)
            listener.advance(len(part))
        del source
        gc.collect()


def parse_folders(text: str) -> dict[str, Path]:
    """`"before=pictures/a,pictures/b"` as folders by label; one without a label is called by its last part.

    Raises:
        RequestError: nothing is named, a folder is not there, or two have one label.
    """
    folders: dict[str, Path] = {}
    for part in parse_names(text):
        label, separator, name = part.partition("=")
        folder = user_path(name if separator else part)
        label = label if separator else folder.resolve().name
        if not label:
            raise RequestError(f"'{shown(part)}' is not a folder of images; expected FOLDER or LABEL=FOLDER.")
        if label in folders:
            raise RequestError(
                f"Two folders are called '{shown(label)}'; label them, as in --images a={shown(folders[label])},"
                f"b={shown(folder)}"
            )
        if not folder.is_dir():
            what = "it is a file" if folder.exists() else "nothing is there"
            raise RequestError(f"There is no folder of images {shown(folder)}: {what}.")
        folders[label] = folder
    if not folders:
        raise RequestError("No folder is named; expected some, as in --images before=FOLDER,after=FOLDER.")
    return folders


class Folders:
    """Folders of pictures, each image with its prompt.

    Args:
        folders: by label; the labels are the images' makers.
        prompts: `--prompts`, of the images of every folder; None where they lie beside the images.
        prompt: `--prompt`, which is all images' prompt.

    Attributes:
        notices: sentences about where prompts came from and how images were read.

    Raises:
        RequestError: a folder holds no image, or an image has no prompt.
    """

    def __init__(self, folders: Mapping[str, Path], prompts: str | None = None, prompt: str | None = None):
        self.notices: list[str] = []
        self._files: list[tuple[str, Path, str]] = []
        for label, folder in folders.items():
            images = sorted(without_grid(list_images(folder)), key=natural_key)
            texts, notice = match_prompts(images, str(folder), prompts, prompt)
            self.notices += [notice] if notice else []
            self._files += [(label, path, text) for path, text in zip(images, texts, strict=True)]

    @property
    def prompts(self) -> list[Prompt]:
        """The images' prompts, each once."""
        return [Prompt(text, str(number)) for number, text in enumerate(dict.fromkeys(self._texts), 1)]

    @property
    def _texts(self) -> list[str]:
        return [text for _, _, text in self._files]

    def read(self, prompts: Sequence[Prompt], listener: Listener) -> Iterator[NewCandidate]:
        """The images of some prompts, read one after the other.

        Raises:
            RequestError: one cannot be read.
        """
        of_prompt = {prompt.text: prompt for prompt in prompts}
        files = [(label, path, text) for label, path, text in self._files if text in of_prompt]
        listener.begin("images of folders", len(files))
        notes = []
        for label, path, text in files:
            image = read_image(path)
            notes.append(image.notes)
            yield NewCandidate(text, label, image.pixels, of_prompt[text].category)
            listener.advance(1)
        self.notices += say_notes(notes)


def sample(prompts: Sequence[Prompt], count: int | None, seed: int) -> Sequence[Prompt]:
    """A seeded sample of prompts, as `load_prompts` draws it; all where no count is given.

    Raises:
        RequestError: the count is below 1, or there are not so many.
    """
    return prompts if count is None else part_of(PromptList("", list(prompts)), None, count, seed).prompts
