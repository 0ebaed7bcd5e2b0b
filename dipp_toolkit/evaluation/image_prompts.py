"""The prompt of each image of a folder: from a file of prompts, from one beside the images, or from their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import RequestError
from .image_files import read_prompts

GRID = "grid.png"
"""The picture of all pictures that `dipp generate` writes beside them."""
FILES = "(files)"
"""What single images are compared as, where folders stand beside them."""

BESIDE = (
    "prompts.json",
    "prompts.jsonl",
    "metadata.jsonl",
    "metadata.csv",
    "prompts.csv",
    "prompts.tsv",
    "prompts.txt",
)
"""Files of prompts that may lie among the images themselves; `metadata` is how Hugging Face's image folders have it."""

WITH_IDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Endings of files whose prompts have ids; in others an id is only a line's number."""

NUMBERED = re.compile(r"\d{3,}-([a-z0-9-]+)\.png")
CUT = 39
"""Characters from which a file's name may hold only the beginning of its prompt."""


def without_grid(images: Sequence[Path]) -> list[Path]:
    """A folder's images without the grid that `dipp generate` puts beside its numbered pictures."""
    others = [path for path in images if path.name != GRID]
    return others if others and all(NUMBERED.fullmatch(path.name) for path in others) else list(images)


def match_prompts(images: Sequence[Path], group: str, prompts: str | None, prompt: str | None) -> tuple[list[str], str]:
    """A prompt for each image, and a notice where one is due.

    Args:
        images: of one folder, in natural order.
        group: the folder, for messages.
        prompts: `--prompts`; a file, or the name of a prompt set.
        prompt: `--prompt`, which is all images' prompt.

    Raises:
        RequestError: there is no prompt for an image, or no telling which.
    """
    if prompt is not None:
        return [prompt] * len(images), ""
    if prompts is not None:
        return _in_order_or_by_name(images, group, prompts), ""
    if len({path.parent for path in images}) == 1:
        for name in BESIDE:
            beside = images[0].parent / name
            if beside.is_file():
                return _in_order_or_by_name(images, group, str(beside)), f"Prompts of {group}: from {beside}."
    return _from_names(images, group)


def _from_names(images: Sequence[Path], group: str) -> tuple[list[str], str]:
    names = [NUMBERED.fullmatch(path.name) for path in images]
    slugs = [name[1] for name in names if name]
    if len(slugs) < len(images):
        which = "the images" if group == FILES else f"the images of {group}"
        raise RequestError(
            f"There are no prompts for {which}: give them with --prompts FILE, one a line, or one for "
            "all with --prompt TEXT, which may be empty ('') for rewards that read none."
        )
    for path, slug in zip(images, slugs, strict=True):
        if len(slug) >= CUT:
            raise RequestError(
                f"The prompt of {path} is cut short in its name; give the prompts of {group} with --prompts FILE."
            )
    return [slug.replace("-", " ") for slug in slugs], (
        f"Prompts of {group}: from the names of the files, without capitals and punctuation. "
        "Give those that the images were made from with --prompts FILE."
    )


def _in_order_or_by_name(images: Sequence[Path], group: str, source: str) -> list[str]:
    """By the images' names, where prompts name them; by the prompts' ids, where all images are called so; in order."""
    prompts = read_prompts(source)
    if all(prompt.file for prompt in prompts):
        by_name: dict[str, set[str]] = {}
        for prompt in prompts:
            by_name.setdefault(Path(prompt.file).name, set()).add(prompt.text)
        # A file may be listed with a folder that is another today; its name is enough where it says one prompt.
        plain = {name: next(iter(texts)) for name, texts in by_name.items() if len(texts) == 1}
        by_file = plain | {prompt.file: prompt.text for prompt in prompts}
        return [_look_up(by_file, path, source) for path in images]
    if any(prompt.file for prompt in prompts):
        bare = next(prompt for prompt in prompts if not prompt.file)
        raise RequestError(f"{source} names an image for some prompts and none for '{bare.id}'; expected one for each.")
    ids = {prompt.id: prompt.text for prompt in prompts} if Path(source).suffix.lower() in WITH_IDS else {}
    if len(ids) == len(prompts) and all(path.name in ids or path.stem in ids for path in images):
        return [ids.get(path.name, ids.get(path.stem, "")) for path in images]
    if len(prompts) != len(images):
        raise RequestError(
            f"{source} has {len(prompts)} prompt{'s' * (len(prompts) != 1)} and {group} has {len(images)} "
            f"image{'s' * (len(images) != 1)}; expected one prompt for each image, in the natural order of their "
            "names, or images called by the prompts' ids."
        )
    return [prompt.text for prompt in prompts]


def _look_up(prompts: Mapping[str, str], path: Path, source: str) -> str:
    for key in (str(path), path.name, path.stem):
        if key in prompts:
            return prompts[key]
    raise RequestError(f"{source} has no prompt for {path.name}; its first name is '{next(iter(prompts))}'.")
