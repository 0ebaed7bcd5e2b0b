"""The Hugging Face hub: uploading a finished generator."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import RequestError, RunError, first_line


def check_repository(repository: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        RequestError: it is no `owner/name`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise RequestError(f"--push-to-hub {repository} is no repository; expected owner/name.")


def check_hub(repository: str) -> None:
    """Refuse before a training what an upload would fail on after it.

    Raises:
        RequestError: the name is no `owner/name`, or nobody is logged in, or the hub cannot be reached.
    """
    check_repository(repository)
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:  # the hub's client raises its own and its HTTP library's errors
        raise RequestError(
            f"Cannot upload to {repository}: {first_line(error)}. Run 'hf auth login' first, or leave "
            "--push-to-hub out and upload the folder final/ later."
        ) from error


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload a pipeline folder; returns its address.

    Raises:
        RunError: the upload failed; the folder is whole on disk.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Generator by dipp-toolkit")
    except Exception as error:  # as above
        raise RunError(
            f"The run is done, but uploading to {repository} failed: {first_line(error)}. "
            f"Try again with: hf upload {repository} {folder}"
        ) from error
    return f"https://huggingface.co/{repository}"
