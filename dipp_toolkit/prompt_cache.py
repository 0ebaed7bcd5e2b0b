"""Prompts encoded once: embeddings and masks in a folder, keyed by encoder and text.

Below the cache's folder each encoder has its own, named after its configuration (which says what kind of encoder it is)
and a fingerprint of its weights (which tells a fine-tuned one from the original). Inside are chunks of a few hundred
prompts, safetensors files that each appear whole or not at all; encoding that was cut off goes on where it stopped.
Rows are read from the mapped files when a batch needs them. With a cache that holds every prompt, no text encoder is
loaded, and none needs to be there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .condition import Condition
from .errors import RequestError
from .prompt_encoder import PromptEncoder

CHUNK = 256
SAMPLED = 2**16
"""Bytes at the beginning, the middle and the end of a weights file that go into its fingerprint."""


def default_cache() -> Path:
    """`$DIPP_CACHE/prompts`, or `~/.cache/dipp/prompts`."""
    return Path(os.environ.get("DIPP_CACHE", "~/.cache/dipp")).expanduser() / "prompts"


def _configuration_key(encoder: PromptEncoder) -> str:
    parts: list[Any] = [type(encoder.family).__name__, str(encoder.dtype)]
    for name in encoder.names:
        config = json.loads((encoder.folder / name / "config.json").read_text(encoding="utf-8"))
        parts.append({key: value for key, value in config.items() if not key.startswith(("_", "transformers_version"))})
    for folder in sorted(encoder.folder.glob("tokenizer*")):
        for file in sorted(folder.glob("*.json")):
            parts.append([folder.name, file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _weights_key(encoder: PromptEncoder) -> str | None:
    digest = hashlib.sha256()
    for name in encoder.names:
        files = sorted((encoder.folder / name).glob("*.safetensors"))
        if not files:
            return None
        for path in files:
            size = path.stat().st_size
            digest.update(f"{name} {size}".encode())
            with path.open("rb") as file:
                for start in (0, max(0, size // 2 - SAMPLED // 2), max(0, size - SAMPLED)):
                    file.seek(start)
                    digest.update(file.read(SAMPLED))
    return digest.hexdigest()[:16]


def encoder_folder(cache: Path, encoder: PromptEncoder) -> Path:
    """The folder of this encoder's prompts.

    Raises:
        RequestError: the encoder's weights are not here and the cache holds prompts of several that they could be.
    """
    base = cache / _configuration_key(encoder)
    weights = _weights_key(encoder)
    if weights is not None:
        return base / weights
    known = sorted(one for one in base.iterdir() if one.is_dir()) if base.is_dir() else []
    if len(known) > 1:
        raise RequestError(
            f"The prompt cache {base} holds prompts of {len(known)} encoders of one configuration; while the encoder's "
            f"weights are missing in {encoder.folder}, nobody can tell which of them is meant. Fetch the weights."
        )
    return known[0] if known else base / "unknown"


@dataclass
class PromptCache:
    """The encoded prompts of one encoder.

    Attributes:
        folder: holds the chunks.
        places: chunk and row of every prompt that is there.
    """

    folder: Path
    places: dict[str, tuple[Path, int]] = field(default_factory=dict)
    _open: dict[Path, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            self._note(path)

    def _note(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                prompts = json.loads(file.metadata()["prompts"])
        except Exception as error:  # safetensors raises an error of its own
            raise RequestError(
                f"The prompt cache file {path} is damaged. Delete it; its prompts are encoded again."
            ) from error
        for row, prompt in enumerate(prompts):
            self.places.setdefault(prompt, (path, row))

    def add(self, condition: Condition) -> None:
        """Write a chunk.

        Raises:
            RequestError: the folder cannot be written.
        """
        prompts = list(condition.prompts)
        name = hashlib.sha256("\0".join(prompts).encode()).hexdigest()[:24]
        beside, path = self.folder / f".{name}.partial", self.folder / f"{name}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tensors = {key: one.detach().cpu().contiguous() for key, one in condition.tensors.items()}
            save_file(tensors, beside, metadata={"prompts": json.dumps(prompts)})
            beside.replace(path)
        except OSError as error:
            raise RequestError(f"Cannot write the prompt cache {self.folder}: {error.strerror or error}.") from error
        self._note(path)

    def encode(self, encoder: PromptEncoder, prompts: Sequence[str], chunk: int = CHUNK, progress: Any = None) -> int:
        """Encode and write the prompts that are missing; returns how many were.

        Args:
            encoder: loaded if a prompt is missing.
            prompts: any number, repetitions allowed.
            chunk: prompts a file.
            progress: called with the number of prompts done and to do after each chunk.

        Raises:
            RequestError: the encoder cannot be loaded, or a prompt is too long.
        """
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.places]
        for start in range(0, len(missing), chunk):
            self.add(encoder.encode(missing[start : start + chunk]))
            if progress is not None:
                progress(min(start + chunk, len(missing)), len(missing))
        return len(missing)

    def read(self, prompts: Sequence[str]) -> Condition:
        """The encoded prompts, in the order given.

        Raises:
            KeyError: one is not in the cache.
        """
        rows: list[dict[str, torch.Tensor]] = []
        for prompt in prompts:
            path, row = self.places[prompt]
            if path not in self._open:
                self._open[path] = safe_open(path, "pt")
            file = self._open[path]
            rows.append({name: file.get_slice(name)[row : row + 1] for name in file.keys()})  # noqa: SIM118
        return Condition(tuple(prompts), {name: torch.cat([one[name] for one in rows]) for name in rows[0]})


@dataclass(frozen=True)
class CachedConditions:
    """Encoded prompts that stay on disk until a batch needs them; indexed like a `Condition`.

    Attributes:
        prompts: the texts, one a row.
        cache: holds each of them.
        device: batches are moved there.
    """

    prompts: tuple[str, ...]
    cache: PromptCache
    device: torch.device

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Sequence[int] | slice) -> Condition:
        chosen = self.prompts[rows] if isinstance(rows, slice) else [self.prompts[int(row)] for row in rows]
        return self.cache.read(chosen).to(self.device)
