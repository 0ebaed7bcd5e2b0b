"""What the hub's errors mean, in a sentence each, and the way out of them."""

from __future__ import annotations

from ...errors import first_line


def hub_problem(error: Exception, hub: str, file: str | None = None) -> str:
    """What went wrong when something of a repository was fetched, and what to do.

    Args:
        error: what the hub's client or its HTTP library raised.
        hub: owner/name.
        file: the requested file; None for the whole repository.
    """
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    page = f"https://huggingface.co/{hub}"
    what, command = (f"{file} of {hub}", f"hf download {hub} {file}") if file else (hub, f"hf download {hub}")
    sentences: list[tuple[tuple[type[Exception], ...], str]] = [
        (
            (GatedRepoError,),
            f"{hub} is gated: accept its licence at {page}, run 'hf auth login', and try again.",
        ),
        (
            (RepositoryNotFoundError,),
            f"The hub has no repository {hub}, or it is private and you may not see it. Look at {page}: where it was "
            "renamed or removed, name another copy or a folder; where it is private, run 'hf auth login'.",
        ),
        (
            (DisabledRepoError,),
            f"The hub has disabled the repository {hub}; name another copy or a folder. See {page}.",
        ),
        (
            (HFValidationError,),
            f"'{hub}' cannot be a repository of the hub; expected owner/name.",
        ),
        (
            (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError),
            f"{what} is not in the hub's cache, and the hub cannot be reached ({_why(error)}). Run '{command}' on a "
            "machine with a network, and name what it prints.",
        ),
        (
            (EntryNotFoundError,),
            f"{hub} has no {f'file {file}' if file else 'such file'}. What it has is listed at {page}/tree/main.",
        ),
    ]  # the first that fits: the hub's client derives the special ones from the general ones
    sentence = next((text for kinds, text in sentences if isinstance(error, kinds)), None)
    return sentence or (
        f"{what} cannot be fetched from the hub: {first_line(error)}. Where a licence asks for it, accept it at {page} "
        f"and run 'hf auth login'; then run '{command}' on a machine with a network, and name what it prints."
    )


def _why(error: Exception) -> str:
    """The cause of an error that reports only a missing file."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error)
