"""A trained generator that is not a diffusers pipeline: `generator.json` beside what it saved names its loader.

The counterpart of `save_pretrained` is `load_pretrained(folder, **options)`, an attribute of what the generator's name
means: a class has it as a classmethod. Code that a folder names is never imported: the name in `generator.json` is
looked up among the installed plugins alone, and a generator of somebody's own file is named with its folder,
`file.py:Name@folder`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RequestError
from ...registry import GIVEN, get_registry
from ...utils.atomic import write_text
from ...utils.imports import check_options, is_python_name, load_python_name
from ...utils.json_files import read_json
from ...utils.messages import quoted, shown
from ...utils.paths import is_there, user_path

if TYPE_CHECKING:
    from ...protocols import Generator

DIFFUSERS = "diffusers:"
"""What a name starts with that says it is a diffusers pipeline."""
FILE = "generator.json"
INDEX = "model_index.json"
AT = "@"
LOADER = "load_pretrained"


@dataclass(frozen=True)
class SavedGenerator:
    """What `generator.json` says.

    Attributes:
        folder: holds it, and what the generator's `save_pretrained` wrote.
        name: of the generator that was trained: registered, `file.py:Name` or `module:Name`.
        reference: name of the reference that encodes prompts and decodes latents for it; empty where none is known.
        options: that it was made with.
    """

    folder: Path
    name: str
    reference: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Final:
    """What a run's `final/` is, in a few words, and what cannot be done with it; nothing where it loads again."""

    text: str
    problem: str = ""


def split_saved(name: str) -> tuple[str, str | None]:
    """`"file.py:Name@folder"` as the generator's own name and the folder; the name alone where it has no folder."""
    names = get_registry().entries["generator"]
    at = name.find(AT)
    while at > 0 and not is_there(name):
        if name[:at] in names or is_python_name(name[:at]):
            return name[:at], name[at + 1 :]
        at = name.find(AT, at + 1)
    return name, None


def place_of(name: str) -> str:
    """What of a generator's name can be a folder: the part after `@`, or all of it."""
    own, place = split_saved(name)
    return own if place is None else place


def saved_generator(name: str) -> SavedGenerator | None:
    """What a run folder, or the folder of a saved generator, says of itself; None where it holds no `generator.json`.

    Args:
        name: the folder, or `NAME@folder`, which overrules the name in the file.

    Raises:
        RequestError: the file is damaged, or there is none and `NAME@` asks for one.
    """
    own, place = split_saved(name)
    if place is None and not is_there(name):
        return None
    folder = user_path(name if place is None else place)
    for inside in (folder, folder / "final"):
        if (inside / FILE).exists():
            content = read_json(inside / FILE)
            written, reference = content.get("generator"), content.get("reference") or ""
            options = content.get("options") or {}
            if not isinstance(written, str) or not isinstance(reference, str) or not isinstance(options, dict):
                raise RequestError(
                    f"{inside / FILE} does not name a generator; expected a text, got {quoted(written)}."
                )
            return SavedGenerator(inside, written if place is None else own, reference, options)
    if place is not None:
        raise RequestError(
            f"There is no saved generator in {folder}: neither {FILE} nor final/{FILE}. Name a finished run's folder "
            f"after the {AT}, or leave it out for the untrained generator."
        )
    return None


def load_saved(saved: SavedGenerator, by_person: bool, options: Mapping[str, Any]) -> Generator:
    """Load what a training saved.

    Args:
        saved: which.
        by_person: whether the name in it was typed, so that code may be imported for it.
        options: for `load_pretrained`, beside those that the generator was made with.

    Raises:
        RequestError: no installed plugin can load it, or it names code that was not typed by the user.
        PluginError: its code cannot be imported.
    """
    names = get_registry().entries["generator"]
    if saved.name not in names and not is_python_name(saved.name):
        raise RequestError(
            f"{saved.folder} was saved by the generator '{shown(saved.name)}', which no installed plugin has. Install "
            f"the plugin, or name the code: file.py:Name{AT}{saved.folder}"
        )
    if saved.name not in names and not by_person:
        raise RequestError(
            f"{saved.folder} was saved by {shown(saved.name)}, and code that a folder names is never run. If that file "
            f"is yours, say so: {shown(saved.name)}{AT}{saved.folder}"
        )
    loader = loader_of(saved.name)
    if loader is None:
        raise RequestError(cannot_load(saved.name, saved.folder))
    given = {**saved.options, **options}
    check_options(loader, given, f"{LOADER} of '{saved.name}'")
    return loader(saved.folder, **given)  # type: ignore[no-any-return]


def loader_of(name: str) -> Any:
    """The `load_pretrained` of a generator, by a registered name or one of Python; None where it has none."""
    from ...protocols import Reloadable  # it imports torch, which reading a name alone does not need

    entry = get_registry().entries["generator"].get(name)
    maker = entry.attribute if entry is not None else load_python_name(name, "generator")
    return maker.load_pretrained if isinstance(maker, Reloadable) else None


def cannot_load(name: str, folder: Path) -> str:
    """What a generator without `load_pretrained` means for what was saved."""
    return (
        f"{folder} holds what save_pretrained of '{shown(name)}' wrote, and '{shown(name)}' has no {LOADER}(folder) to "
        "load it again. Its run can be resumed; add that method, and the folder can be generated from, benched and "
        "trained on from."
    )


def note_generator(final: Path, name: str | None, reference: str | None, options: Mapping[str, Any]) -> Final:
    """Write `generator.json` beside what a generator saved, where that is not a diffusers pipeline.

    Args:
        final: the folder.
        name: of the generator, as in the settings; None for a copy of the reference.
        reference: as in the settings.
        options: that the generator was made with.

    Returns:
        What the folder is.
    """
    maker = name and _maker_of(name)
    loads = bool(maker) and loader_of(str(maker)) is not None
    if not final.is_dir():  # of several processes the first alone saves
        return Final("")
    if not maker or (not loads and (final / INDEX).is_file()):
        return Final("the generator, a diffusers pipeline")
    about = {"generator": maker, "reference": reference or "", "options": dict(options)}
    write_text(final / FILE, json.dumps(about, indent=2) + "\n")
    if not loads:
        return Final(f"what {shown(maker)} saved; it cannot be loaded again yet", cannot_load(maker, final))
    entry = get_registry().entries["generator"].get(maker)
    if entry is not None and entry.plugin == GIVEN:
        return Final("what your generator saved; in Python, the result's .generator loads it")
    called = final.parent if maker in get_registry().entries["generator"] else f"{maker}{AT}{final.parent}"
    return Final(f"the generator, for --generator {called}")


def _maker_of(name: str) -> str | None:
    """The name whose code made a generator; None where that is the toolkit's own, of diffusers folders."""
    own, _ = split_saved(name)
    if own in get_registry().entries["generator"] or is_python_name(own):
        return own
    saved = saved_generator(name)
    return None if saved is None else saved.name


def reference_beside(name: str) -> str | None:
    """The reference that a generator's prompts are encoded and its latents decoded with, where none is named.

    Returns:
        The one its plugin recommends; the one it was trained with; a pipeline's own folder, which holds copies of the
        text encoder and the decoder. None where none is known.

    Raises:
        RequestError: the one it was trained with is code, which a folder cannot name.
    """
    saved = saved_generator(name)
    if saved is not None:
        own, place = split_saved(name)
        if not is_python_name(saved.reference):
            return saved.reference or _recommended(own if place is not None else saved.name)
        raise RequestError(
            f"{saved.folder} was trained with the reference {shown(saved.reference)}, and code that a folder names "
            "is never run. If that file is yours, name it as the reference."
        )
    if name in get_registry().entries["generator"] or is_python_name(name):
        return _recommended(name)
    return name


def _recommended(name: str) -> str | None:
    entry = get_registry().entries["generator"].get(name)
    reference = entry.defaults.get("reference") if entry is not None else None
    return None if reference is None else str(reference)
