"""Files of the hub: fetched where they are not in its cache, and in a dry run only looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from glob import escape
from pathlib import Path

from ...errors import RequestError

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


def only_looking() -> bool:
    """Whether this is a dry run, in which nothing is fetched and nothing written."""
    return _missing.get() is not None


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


def hub_files(hub: str, anchors: Sequence[str], choose: Callable[[Sequence[str]], Sequence[str]]) -> Path:
    """The folder of a repository with files that are chosen from its listing, from the hub's cache or the hub.

    Where the hub cannot be reached, it is the folder in the cache as it is.

    Args:
        hub: owner/name.
        anchors: files of which the cache has one where it has anything.
        choose: which files of those that are listed are needed.

    Raises:
        NotHere: this is a dry run and the cache has none of the anchors.
        RequestError: as `choose` raises.
        Exception: as `hub_file`.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    if _missing.get() is not None:
        for anchor in anchors:
            cached = try_to_load_from_cache(hub, anchor)
            if isinstance(cached, str):
                return Path(cached.removesuffix(anchor))
        check_fetching(f"the weights and configurations of huggingface.co/{hub}")
    try:
        listing = HfApi().list_repo_files(hub)
    except Exception:
        with suppress(Exception):  # what is wrong with the hub counts where the cache does not have it either
            return Path(snapshot_download(hub, allow_patterns=[*anchors], local_files_only=True))
        raise
    return Path(snapshot_download(hub, allow_patterns=[escape(name) for name in choose(listing)]))


def hub_id_of(path: Path) -> str | None:
    """The `owner/name` of the repository that a path of the hub's cache, or a link to one, belongs to; else None."""
    parts = (*path.parts, *path.resolve().parts)
    return next((part[8:].replace("--", "/") for part in parts if part.startswith("models--")), None)
