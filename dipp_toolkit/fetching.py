"""Files of the hub: fetched where they are not in its cache, and in a dry run only looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .errors import RequestError

_missing: ContextVar[dict[str, None] | None] = ContextVar("what a dry run would fetch", default=None)


class NotHere(RequestError):  # noqa: N818 -- in a dry run it is an answer and no error
    """Something would have to be fetched, and this is a dry run."""


@contextmanager
def without_fetching() -> Iterator[dict[str, None]]:
    """What would come over the network raises `NotHere` instead, and is noted in the keys of what is yielded."""
    noted: dict[str, None] = {}
    token = _missing.set(noted)
    try:
        yield noted
    finally:
        _missing.reset(token)


def check_fetching(what: str) -> None:
    """Called before something is fetched.

    Args:
        what: is fetched, for people.

    Raises:
        NotHere: this is a dry run.
    """
    noted = _missing.get()
    if noted is not None:
        noted[what] = None
        raise NotHere(f"Not here, and not fetched in a dry run: {what}.")


def hub_file(hub: str, filename: str, *, kind: str | None = None, revision: str | None = None) -> Path:
    """A file of a repository, from the hub's cache or the hub.

    Args:
        hub: owner/name.
        filename: in the repository.
        kind: `"dataset"` for one; a model's otherwise.
        revision: a commit; the newest where None.

    Raises:
        NotHere: this is a dry run and the file is not in the cache.
        Exception: whatever the hub's client and its HTTP library raise.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if _missing.get() is not None:
        cached = try_to_load_from_cache(hub, filename, repo_type=kind, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        check_fetching(f"{filename} of huggingface.co/{'datasets/' if kind == 'dataset' else ''}{hub}")
    return Path(hf_hub_download(hub, filename, repo_type=kind, revision=revision))


def hub_pipeline(hub: str, wanted: list[str], unwanted: list[str]) -> Path:
    """The folder of a pipeline's repository, from the hub's cache or the hub.

    Args:
        hub: owner/name.
        wanted: patterns of its files.
        unwanted: patterns of those that are left there.

    Raises:
        NotHere: this is a dry run and the cache holds no such pipeline.
        Exception: as `hub_file`.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    if _missing.get() is not None:
        cached = try_to_load_from_cache(hub, "model_index.json")
        if isinstance(cached, str):
            return Path(cached).parent
        check_fetching(f"the pipeline huggingface.co/{hub}")
    return Path(snapshot_download(hub, allow_patterns=wanted, ignore_patterns=unwanted))


def hub_id_of(path: Path) -> str | None:
    """The `owner/name` of the repository that a path of the hub's cache belongs to; None for another path."""
    return next((part[8:].replace("--", "/") for part in path.parts if part.startswith("models--")), None)
