"""Pipelines in the Hugging Face layout: one code path makes a local folder or hub id a reference or a generator.

What differs between pipeline classes is a `PipelineFamily`; see `family`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ...errors import DippError, RequestError
from ...registry import get_registry
from ...utils.json_files import MOST_BYTES, check_regular, read_json
from ...utils.messages import quoted, shown, unknown_name
from ...utils.paths import is_local_name, user_path
from ..family import Configured, PipelineFamily
from ..guidance_embedding import recorded_guidance, with_guidance_embedding
from .diffusers_version import check_diffusers
from .download_lists import INDEX, JOINED, pipeline_files
from .fetching import hub_file, hub_files
from .hub_problems import hub_problem
from .safety import check_index

MOST_NAMES = 8
"""Files that are looked at for a message."""
MOST_TIMES = 100_000
"""Training times of a schedule; published ones have 1000, and every one takes memory."""


def resolve_folder(name: str) -> Path:
    """The local folder of a pipeline, from a path or a hub id (downloaded to the hub's cache).

    `PIPELINE+NETWORK` is the pipeline with the network of another folder or repository; see
    `start_weights.joined_folder`.

    Raises:
        RequestError: no pipeline is there; the message says where was looked.
    """
    path = user_path(name)
    if path.is_dir():
        for folder in (path, path / "final"):
            if (folder / "model_index.json").is_file():
                check_files(folder)
                return folder
        raise RequestError(
            f"{path} is not a diffusers pipeline: it has neither model_index.json nor final/model_index.json."
        )
    pipeline, joined, network = name.partition(JOINED)
    if joined and not path.exists():
        from ..start_weights.joined_folder import joined_folder

        return joined_folder(resolve_folder(pipeline), network)
    if path.exists() or is_local_name(name):
        raise RequestError(f"There is no pipeline folder {path} (looked in {path.parent.resolve()}).")
    fetched = fetched_files(name, [INDEX], lambda listing: _needed_of(name, listing))
    check_files(fetched)
    return fetched


def fetched_files(hub: str, anchors: Sequence[str], choose: Callable[[Sequence[str]], Sequence[str]]) -> Path:
    """`fetching.hub_files`, whose errors are sentences.

    Raises:
        RequestError: it cannot be fetched; the message says the way out.
        NotHere: it would have to be fetched, and this is a dry run.
    """
    try:
        return hub_files(hub, anchors, choose)
    except DippError:
        raise
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(f"There is no folder {shown(hub)} here. {hub_problem(error, hub)}") from error


def _needed_of(hub: str, listing: Sequence[str]) -> list[str]:
    """What is fetched of a pipeline's repository.

    Raises:
        RequestError: it is not a pipeline.
    """
    from ..export import ASSISTANT

    if INDEX not in listing:
        weights = [name for name in listing if name.endswith(".safetensors")][:MOST_NAMES]
        way = f" To start from a file of it, name it: --set weights={hub}:{weights[0]}" if weights else ""
        raise RequestError(
            f"{hub} is not a diffusers pipeline: it has no {INDEX}. Name the pipeline that it belongs to.{way}"
        )
    return pipeline_files(listing, read_json(hub_file(hub, INDEX)), (ASSISTANT,))


def check_files(folder: Path, *, deep: bool = True) -> None:
    """Refuse a folder with something that the loading libraries would wait for, or read without end.

    Args:
        folder: that is going to be loaded from.
        deep: whether its own folders are looked into as well, as a pipeline's components are.

    Raises:
        RequestError: a file is a pipe, a device, or JSON of more than 64 MB.
    """
    for path in (*folder.iterdir(), *(folder.glob("*/*") if deep else ())):
        try:
            status = path.stat()
        except OSError:  # a dangling link; loading the file reports it
            continue
        if not stat.S_ISDIR(status.st_mode):
            check_regular(path, status, MOST_BYTES if path.suffix in (".json", ".txt", ".md") else None)


def read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The scheduler's configuration in a pipeline folder.

    Raises:
        RequestError: it is missing, is not JSON, or has more training times than any scheduler.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    count = config.get("num_train_timesteps")
    if isinstance(count, int | float) and not 1 <= count <= MOST_TIMES:
        raise RequestError(
            f"{path} has num_train_timesteps={quoted(count)}; expected a whole number from 1 to {MOST_TIMES:,}, such "
            "as 1000."
        )
    return config


def family_of(folder: Path) -> PipelineFamily:
    """The family of a pipeline folder, by the class its `model_index.json` names.

    Raises:
        RequestError: no installed plugin knows the class, the installed diffusers is older than it, or the folder asks
            for code of its own; see `check_index`.
    """
    index = read_json(folder / "model_index.json")
    name = shown(index.get("_class_name"))
    families = get_registry().entries["pipeline"]
    if name not in families:
        raise RequestError(
            f"No plugin can load the pipeline class of {folder}. {unknown_name('pipeline', name, families)}"
        )
    check_index(index, folder)
    family = families[name].build()
    check_diffusers(name, family, folder)
    family = family.configured(folder) if isinstance(family, Configured) else cast(PipelineFamily, family)
    return with_guidance_embedding(family, recorded_guidance(index, folder), folder)


def component_config(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of a pipeline's network; empty where it is missing, which whoever loads the network says.

    Raises:
        RequestError: it is not a JSON object.
    """
    path = folder / name / "config.json"
    return read_json(path) if path.is_file() else {}


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and no advice from the loading libraries: a run reports what matters itself."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (level, shows_bars) in zip(libraries, before, strict=True):
            library.set_verbosity(level)
            if shows_bars:
                library.enable_progress_bar()
