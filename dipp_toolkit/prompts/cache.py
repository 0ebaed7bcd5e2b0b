"""Prompts encoded once: embeddings and masks in a folder, keyed by encoder and text.

Below the cache's folder each encoder has its own, named after its configuration (which says what kind of encoder it is)
and a fingerprint of its weights (which tells a fine-tuned one from the original). Inside are chunks of a few hundred
prompts, safetensors files that each appear whole or not at all; encoding that was cut off goes on where it stopped.
Rows are read from the mapped files when a batch needs them, found by an index on disk. With a cache that holds every
prompt, no text encoder is loaded, and none needs to be there.

Embeddings are kept in the text encoder's precision and without what is masked, and come back in float32, padded: the
bits that encoding gives. What says an image's size is no part of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..diffusion.condition import Condition
from ..errors import RequestError, first_line
from ..models.files.weight_files import PICKLE, weights_in
from ..models.text_encoders import PromptEncoder
from ..utils.content_digests import file_digest
from ..utils.messages import shown
from ..utils.paths import cache_place
from ..utils.plain_json import read_json
from .chunks import CUT, ENDING, PARTIAL, OpenChunk, open_chunk, remove_abandoned, version_of, write_chunk
from .index import PromptIndex

CHUNK = 256
OPEN_CHUNKS = 128
"""Most chunks that are mapped at a time."""
FORMAT = 2
"""Counted up when files or embeddings change, so that caches of older versions are not found and never mistaken."""


def default_cache() -> Path:
    """`$DIPP_CACHE/prompts`, or `~/.cache/dipp/prompts`."""
    return cache_place("prompts")


def _configuration_key(encoder: PromptEncoder) -> str:
    parts: list[Any] = [FORMAT, type(encoder.family).__name__, str(encoder.dtype), encoder.settings]
    for name in encoder.names:
        config = read_json(encoder.folder / name / "config.json")
        parts.append({key: value for key, value in config.items() if not key.startswith(("_", "transformers_version"))})
    for folder in sorted(encoder.folder.glob("tokenizer*")):
        for file in sorted(folder.glob("*.json")):
            parts.append([folder.name, file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _weights_key(encoder: PromptEncoder) -> str | None:
    digest = hashlib.sha256()
    for name in encoder.names:
        weights = weights_in(encoder.folder / name) or weights_in(encoder.folder / name, PICKLE)
        if weights is None:
            return None
        for file in weights.files:
            digest.update(f"{name} {file_digest(encoder.folder / name / file)}".encode())
    for folder in sorted(encoder.folder.glob("tokenizer*")):
        for path in sorted(one for one in folder.iterdir() if one.is_file() and one.suffix != ".json"):
            digest.update(f"{folder.name} {path.name} {file_digest(path)}".encode())
    return digest.hexdigest()[:24]


def encoder_folder(cache: Path, encoder: PromptEncoder) -> Path:
    """The folder of this encoder's prompts.

    Raises:
        RequestError: the encoder's weights are not here and the cache holds prompts of several that they could be, or
            the cache or the encoder's configuration cannot be read.
    """
    base = cache / _configuration_key(encoder)
    try:
        weights = _weights_key(encoder)
    except OSError as error:
        raise RequestError(f"Cannot read the text encoders in {encoder.folder}: {error.strerror}.") from error
    if weights is not None:
        return base / weights
    try:
        known = sorted(one for one in base.iterdir() if one.is_dir()) if base.is_dir() else []
    except OSError as error:
        raise RequestError(f"Cannot read the prompt cache {base}: {error.strerror}.") from error
    if len(known) > 1:
        raise RequestError(
            f"The prompt cache {base} holds prompts of {len(known)} encoders of one configuration; while the encoder's "
            f"weights are missing in {encoder.folder}, nobody can tell which of them is meant. Fetch the weights."
        )
    return known[0] if known else base / "unknown"


class _WrongPlaceError(Exception):
    """A prompt is not where the index has it, or nowhere."""


@dataclass
class PromptCache:
    """The encoded prompts of one encoder. Several processes may read and write one folder at once.

    `prompt in cache` says whether one is there.

    Attributes:
        folder: holds the chunks, and an index of them (`prompt_index`).
    """

    folder: Path
    _index: PromptIndex = field(init=False, repr=False)
    _open: OrderedDict[str, OpenChunk] = field(default_factory=OrderedDict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._index = PromptIndex(self.folder)

    def __contains__(self, prompt: object) -> bool:
        return isinstance(prompt, str) and not self.missing([prompt])

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those that are not there, each once, in order."""
        wanted = list(dict.fromkeys(prompts))
        return [prompt for prompt, place in zip(wanted, self._index.find(wanted), strict=True) if place is None]

    def add(self, condition: Condition, dtype: torch.dtype = torch.float32, cut: bool = False) -> None:
        """Write a chunk.

        Args:
            condition: its rows.
            dtype: that floats are kept in where it loses nothing.
            cut: whether the prompts were longer than what was read of them.

        Raises:
            RequestError: the folder cannot be written.
        """
        prompts = list(condition.prompts)
        name = hashlib.sha256("\0".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        beside = self.folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
        path = self.folder / f"{name}{CUT if cut else ENDING}"

        def publish() -> None:
            if beside.exists():
                beside.replace(path)

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                write_chunk(beside, condition, dtype)
                self._index.add(path.name, prompts, publish)
            finally:
                beside.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise RequestError(f"Cannot write the prompt cache {self.folder}: {reason}.") from error

    def encode(self, encoder: PromptEncoder, prompts: Iterable[str], chunk: int = CHUNK, progress: Any = None) -> int:
        """Encode and write the prompts that are missing; returns how many were. One chunk is in memory at a time.

        Args:
            encoder: loaded if a prompt is missing.
            prompts: any number, repetitions allowed.
            chunk: prompts a file.
            progress: called after each chunk with the number of prompts that have been looked at and of those that
                were encoded.

        Raises:
            RequestError: the encoder cannot be loaded, or a prompt is too long.
        """
        remove_abandoned(self.folder)
        waiting: dict[str, None] = {}
        rest = iter(prompts)
        seen, encoded = 0, 0
        while batch := list(islice(rest, chunk)):
            seen += len(batch)
            places = dict(zip(batch, self._index.find(batch), strict=True))
            waiting |= dict.fromkeys(prompt for prompt, place in places.items() if place is None)
            encoder.check_cut([prompt for prompt, place in places.items() if place and place[0].endswith(CUT)])
            if len(waiting) >= chunk:
                encoded += self._write(encoder, waiting, chunk)
                if progress is not None:
                    progress(seen, encoded)
        if waiting:
            encoded += self._write(encoder, waiting, chunk)
            if progress is not None:
                progress(seen, encoded)
        return encoded

    def _write(self, encoder: PromptEncoder, waiting: dict[str, None], chunk: int) -> int:
        """Encode and write the first of those that wait; returns how many."""
        part = list(islice(waiting, chunk))
        condition = encoder.encode(part)
        long = set(encoder.too_long(part)) if encoder.long_prompts == "cut" else set()
        for cut in (False, True):
            rows = [row for row, prompt in enumerate(part) if (prompt in long) == cut]
            if rows:
                self.add(condition[rows], encoder.dtype, cut)
        for one in part:
            del waiting[one]
        return len(part)

    def read(self, prompts: Sequence[str]) -> Condition:
        """The encoded prompts, in the order given.

        Raises:
            RequestError: one is not in the cache, or a chunk is damaged.
        """
        wanted = list(prompts)
        with self._lock:
            try:
                return self._read(wanted)
            except _WrongPlaceError:  # chunks were exchanged while they are in use, or the index is wrong
                self._open.clear()
                self._index.renew()
            try:
                return self._read(wanted)
            except _WrongPlaceError as error:
                raise RequestError(
                    f"The prompt '{shown(str(error))}' is not in the prompt cache {self.folder}. Encode it with: dipp "
                    "prompts encode."
                ) from error

    def _read(self, prompts: list[str]) -> Condition:
        rows: dict[str, list[tuple[int, int]]] = {}
        for index, place in enumerate(self._index.find(prompts)):
            if place is None:
                raise _WrongPlaceError(prompts[index])
            rows.setdefault(place[0], []).append((index, place[1]))
        found: dict[str, torch.Tensor] = {}
        for name, those in rows.items():
            chunk = self._chunk(name, prompts[those[0][0]])
            for index, row in those:
                if chunk.prompts[row : row + 1] != [prompts[index]]:
                    raise _WrongPlaceError(prompts[index])
                values = chunk.row(row)
                if not found:
                    found = {key: one.new_empty((len(prompts), *one.shape)) for key, one in values.items()}
                if any(key not in values or values[key].shape != one.shape[1:] for key, one in found.items()):
                    raise RequestError(
                        f"The prompt cache file {self.folder / name} holds other tensors than the rest of its folder. "
                        "Delete it; its prompts are encoded again."
                    )
                for key, one in found.items():
                    one[index] = values[key]
        return Condition(tuple(prompts), found)

    def _chunk(self, name: str, prompt: str) -> OpenChunk:
        """An open chunk; the one that was not used for longest is closed for it."""
        path = self.folder / name
        try:
            version = version_of(path)
        except OSError as error:
            raise _WrongPlaceError(prompt) from error
        if path.parent != self.folder:
            raise _WrongPlaceError(prompt)
        if name in self._open and self._open[name].version != version:  # another process has written it again
            del self._open[name]
        if name not in self._open:
            while len(self._open) >= OPEN_CHUNKS:
                self._open.popitem(last=False)
            self._open[name] = open_chunk(path)
        self._open.move_to_end(name)
        return self._open[name]


def chosen_texts(prompts: Sequence[str], rows: Sequence[int] | slice) -> list[str]:
    """The prompts of a batch."""
    return list(prompts[rows]) if isinstance(rows, slice) else [prompts[int(row)] for row in rows]


@dataclass(frozen=True)
class CachedConditions:
    """Encoded prompts that stay on disk until a batch needs them; indexed like a `Condition`.

    Attributes:
        prompts: the texts, one a row; they may be read from their file themselves.
        cache: holds each of them.
        device: batches are moved there.
        complete: adds what is no part of the cache, such as an image's size.
    """

    prompts: Sequence[str]
    cache: PromptCache
    device: torch.device
    complete: Callable[[Condition], Condition] | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Sequence[int] | slice) -> Condition:
        condition = self.cache.read(chosen_texts(self.prompts, rows)).to(self.device)
        return condition if self.complete is None else self.complete(condition)
