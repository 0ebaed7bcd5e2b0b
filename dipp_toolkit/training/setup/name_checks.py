"""Names that a request gives, looked up before anything is loaded: registered names, files and folders.

Misspelt and missing names are reported first, whatever else the request lacks, and nothing heavy is imported for it.
That a name passes does not mean that what it names can be used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ...config import TrainConfig
from ...errors import RequestError
from ...models.files.saved_generators import DIFFUSERS, FILE, INDEX, split_saved
from ...models.generator_options import generator_options, pipeline_of_reference
from ...models.start_weights.source import check_source
from ...registry import get_registry
from ...rewards.fitted_folders import fitted_folder
from ...rewards.remote.address import parse_addresses
from ...utils.assignments import PROMPT_FILES, is_isolated_name, is_remote_name, split_client
from ...utils.imports import find_python_file, is_python_name
from ...utils.messages import shown
from ...utils.paths import is_there, looks_like_path, user_path
from .given_parts import check_given_again

MOST_NAMES = 8
"""Runs that a message names."""


def check_pipeline(name: str, *kinds: str) -> None:
    """Refuse a generator or reference that is not there.

    Args:
        name: a registered name, `file.py:Name`, a pipeline or run folder, `NAME@folder`, or a hub id; of a hub id
            nothing is known before it is fetched.
        kinds: what it may be, any of `"generator"` and `"reference"`.

    Raises:
        RequestError: the name is unknown, or there is no such file or folder.
    """
    registry = get_registry()
    if any(name in registry.entries[kind] for kind in kinds):
        return
    maker, place = split_saved(name)
    if place is not None:
        check_pipeline(maker, "generator")
        check_folder(place, "run")
    elif is_python_name(name):
        find_python_file(name, " or ".join(kinds))
    elif name.startswith(DIFFUSERS) or looks_like_path(name):
        check_folder(name.removeprefix(DIFFUSERS))
        _check_content(user_path(name.removeprefix(DIFFUSERS)))
    else:
        raise registry.unknown(name, *kinds)


def _check_content(folder: Path) -> None:
    """Refuse a local folder that holds neither a pipeline nor a saved generator.

    Raises:
        RequestError: as a sentence.
    """
    if not folder.is_dir() or any((folder / part / file).is_file() for part in ("", "final") for file in (INDEX, FILE)):
        return
    if (folder / "config.yaml").is_file():
        raise RequestError(
            f"The run in {shown(folder)} has no final/ yet. Finish it with: dipp train --resume --out {shown(folder)}"
        )
    raise RequestError(f"{shown(folder)} is not a diffusers pipeline: it has neither {INDEX} nor final/{INDEX}.")


def may_be_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`, and is not written as a path."""
    return not name.startswith((".", "/", "~")) and re.fullmatch("[^/]+/[^/]+", name) is not None


def check_folder(name: str, what: str = "pipeline") -> None:
    """Refuse a path at which there is no folder, unless it may be a hub id.

    Args:
        name: as typed.
        what: the folder holds, for the message.

    Raises:
        RequestError: as a sentence that says what is there.
    """
    path = user_path(name)
    if path.is_dir():
        return
    if path.exists():
        raise RequestError(f"There is no {what} folder {shown(path)}: it is a file. Name the folder it lies in.")
    runs = _runs_in(path.parent)
    if runs or not may_be_hub_id(name):
        raise RequestError(
            f"There is no {what} folder {shown(path)} (looked in {path.parent.resolve()})."
            + (f" The runs there: {', '.join(runs[:MOST_NAMES])}." if runs else "")
        )


def _runs_in(folder: Path) -> list[str]:
    """The names of the run folders in a folder."""
    try:
        return sorted(path.name for path in folder.iterdir() if (path / "config.yaml").is_file())
    except OSError:
        return []


def check_rewards(names: Iterable[str]) -> None:
    """Refuse rewards that are not there; of one behind an address nothing is known before it is asked.

    Args:
        names: as `--reward` takes them, each without its weight.

    Raises:
        RequestError: a name is unknown, or there is no such file.
    """
    for name in names:
        plain = name.rpartition("@")[0] if is_isolated_name(name) else name
        registry = get_registry()
        client, _ = split_client(name)
        if client and client not in registry.entries["reward"]:
            raise registry.unknown(client, "reward")
        if is_remote_name(name) and not client:
            parse_addresses(name)
        if is_remote_name(name) or (plain != name and not is_python_name(plain)):
            continue  # an environment may hold rewards that nobody has registered here
        if is_python_name(plain):
            find_python_file(plain, "reward")
        elif plain not in registry.entries["reward"] and fitted_folder(plain) is None:
            raise registry.unknown(plain, "reward")


def check_parts(kind: str, names: Iterable[str]) -> None:
    """Refuse metrics or terms that are not there.

    Args:
        kind: `"metric"` or `"term"`.
        names: registered ones, or as `load_python_name` takes them.

    Raises:
        RequestError: a name is unknown, or there is no such file.
    """
    for name in names:
        if is_python_name(name):
            find_python_file(name, kind)
        else:
            get_registry().find(kind, name)


def check_assistant(name: str) -> None:
    """Refuse a name that means no file and no module: nothing else can be an assistant of somebody's own.

    Raises:
        RequestError: as a sentence.
    """
    if not is_python_name(name):
        raise RequestError(
            f"assistant_model={shown(name)} names no Python file or module; expected file.py:Name or module:Name. "
            "Leave it out for the assistant that learns as a copy of the reference."
        )
    find_python_file(name, "assistant")


def check_prompts(name: str) -> None:
    """Refuse a prompt set that is not there.

    Args:
        name: a registered name or a file, either with parts of it behind a question mark.

    Raises:
        RequestError: the name is unknown, or there is no file that can be read.
    """
    plain = name if name and is_there(name) else name.partition("?")[0]
    registry = get_registry()
    if plain in registry.entries["prompts"]:
        return
    if is_python_name(plain):
        find_python_file(plain, "prompt set")
    elif looks_like_path(plain) or Path(plain).suffix.lower() in PROMPT_FILES:
        path = user_path(plain)
        reason = (
            f"No such file (looked in {path.parent.resolve()})"
            if not path.exists()
            else "it is a folder"
            if path.is_dir()
            else "it may not be read"
            if not os.access(path, os.R_OK)
            else ""
        )
        if reason:
            raise RequestError(f"Cannot read the prompt file {shown(path)}: {reason}.")
    else:
        raise registry.unknown(plain, "prompts")


def check_names(config: TrainConfig) -> None:
    """Refuse settings with a name that is not there.

    Args:
        config: the settings that are known; those left out are not asked for.

    Raises:
        RequestError: as a sentence about the first of them, or about objects that a run which resumes was begun with.
    """
    if config.resume and config.out is not None:
        check_given_again(config, user_path(config.out))
    options = generator_options(config)
    for kind, name in (("generator", config.generator), ("reference", config.reference)):
        if name is not None and (kind == "reference" or pipeline_of_reference(name, options) is None):
            check_pipeline(name, kind)
    if config.weights is not None:
        check_source(config.weights)
    for address in config.lora:
        check_source(address, scaled=True)
    check_rewards((*config.rewards, *config.floors, *filter(None, [config.judge]), *config.monitor_rewards))
    for prompts in (config.prompts, config.eval_prompts):
        if prompts is not None:
            check_prompts(prompts)
    check_parts("term", config.terms)
    if config.assistant_model is not None:
        check_assistant(config.assistant_model)
    if config.decoder is not None:
        check_folder(config.decoder, "decoder")
