"""Scores of stored images by rewards and metrics, kept so that each image is scored once.

Below `answers/` every reward or metric has a folder named after a fingerprint of its name, options, code and weights,
and of the circumstances: batch, device, versions.
Inside are safetensors files, a batch each, rows of numbers with the images' keys in the header; each appears whole or
not at all, so a bench that was killed goes on with the next batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from ...errors import RunError, first_line
from ...protocols import Identified
from ...rewards.code_digests import code_digest, identity_of
from ...rewards.remote.proxy import ProxyReward
from ...utils.atomic import write_tensors
from ...utils.content_digests import path_digest
from ...utils.disk_errors import AGAIN, reason_of, way_on
from ...utils.fingerprint import digest_of, networks_in, weights_digest
from ...utils.paths import below, is_there, user_path

ROWS = "rows"


def version_of(name: str, options: Mapping[str, Any], thing: Any) -> str:
    """A fingerprint of a reward or metric, 16 digits: its name, options, weights and code, with all that this imports.

    One that runs elsewhere is asked for its identity, so that a server that changed is noticed, and so is one that says
    itself what it is, such as a judge with its template's text. Files and folders among the options count by their
    bytes.
    """
    options = {key: _content(value) for key, value in options.items()}
    if isinstance(thing, ProxyReward):
        return digest_of([name, options, thing.identity()])[:16]
    code = identity_of(thing) if isinstance(thing, Identified) or code_digest(thing) else ""
    weights = "" if code else weights_digest(networks_in(thing))
    return digest_of([name, options, code, weights])[:16]


def _content(value: Any) -> Any:
    """An option as it counts: a folder or file by the bytes of what is in it."""
    if not isinstance(value, (str, Path)) or not is_there(value):
        return value if not isinstance(value, Path) else str(value)
    return path_digest(user_path(value)) or str(value)


def folder_of(out: Path, name: str, version: str) -> Path:
    """The folder of a reward's or metric's answers in a bench's, whatever the name is.

    Args:
        out: the bench's folder.
        name: the reward's or metric's.
        version: of all that its answers depend on beside the images.

    Raises:
        RequestError: a link in the bench's folder leads out of it.
    """
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in name)
    return below(out, "answers", f"{safe[-40:]}-{version}")


@dataclass
class ScoreCache:
    """The rows of one reward or metric, by image key.

    Attributes:
        folder: holds the batches.
        process: this process's number, so that no two write one file.
    """

    folder: Path
    process: int = 0
    rows: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _read: set[str] = field(default_factory=set, repr=False)

    def refresh(self) -> None:
        """Read the batches that were added since, by this process or another.

        Raises:
            RunError: a batch is damaged.
        """
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._read:
                continue
            try:
                with safe_open(path, "pt") as file:
                    keys, rows = json.loads(file.metadata()["keys"]), file.get_tensor(ROWS)
                self.rows.update(zip(keys, rows, strict=True))
            except Exception as error:  # safetensors raises an error of its own
                raise RunError(f"{path} is damaged: {first_line(error)}. Delete it; it is computed again.") from error
            self._read.add(path.name)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a row, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self.rows]

    def add(self, keys: Sequence[str], rows: Float[Tensor, "batch dimensions"]) -> None:
        """Write the rows of a batch.

        Raises:
            RunError: the folder cannot be written.
        """
        name = f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:24]}-{self.process}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(self.folder / name, {ROWS: rows}, {"keys": json.dumps(list(keys))}, shared=True)
        except OSError as error:
            raise RunError(f"Cannot write the scores: {reason_of(error)}. {way_on(error, AGAIN)}") from error
        self.rows.update(zip(keys, rows.detach().cpu(), strict=True))
        self._read.add(name)

    def table(self, keys: Sequence[str], prompts: int) -> Float[Tensor, "prompts seeds dimensions"]:
        """The rows of these keys, in order, prompt by prompt."""
        return torch.stack([self.rows[key] for key in keys]).unflatten(0, (prompts, -1))


def fill(
    answers: ScoreCache,
    todo: Sequence[tuple[str, str]],
    ask: Callable[[Sequence[str], Sequence[str]], Tensor],
    batch: int,
    progress: Callable[[int], None],
) -> None:
    """Score the images that have no row yet.

    Args:
        answers: where the rows go.
        todo: key and prompt of each image.
        ask: rows of the images of these keys, made for these prompts, `(B, D)`.
        batch: images at a time.
        progress: told the size of each batch that is done.
    """
    for start in range(0, len(todo), batch):
        keys, prompts = (list(column) for column in zip(*todo[start : start + batch], strict=True))
        answers.add(keys, ask(keys, prompts))
        progress(len(keys))
