"""A pipeline's text encoders: loaded when a prompt must be encoded, released when none will be."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from .components import empty_component, load_component
from .condition import Condition
from .errors import RequestError, first_line
from .folders import PipelineFamily, quiet_loading
from .plain_json import read_json

LongPrompts = Literal["refuse", "cut"]
BATCH = 32
"""Prompts that go through the text encoders at once."""


@dataclass
class PromptEncoder:
    """Encodes prompts with the text encoders of a pipeline folder.

    Attributes:
        folder: the pipeline's folder.
        family: what is particular to its class.
        dtype: of the text encoders' weights; embeddings are float32 always.
        device: where the encoders run.
        long_prompts: what becomes of a prompt with more tokens than are read: `"refuse"` or `"cut"`.
        how_to_cut: what to type to have them cut, where the command that encodes has something.
    """

    folder: Path
    family: PipelineFamily
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    long_prompts: LongPrompts = "refuse"
    how_to_cut: str = ""
    _pipeline: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The text encoders' names in `model_index.json`."""
        index = read_json(self.folder / "model_index.json")
        return tuple(name for name, entry in index.items() if name.startswith("text_encoder") and entry[0])

    def _unused(self, parts: Collection[str]) -> list[str]:
        """Networks of the pipeline that no prompt goes through, such as a safety checker."""
        index = read_json(self.folder / "model_index.json")
        named = [name for name, entry in index.items() if isinstance(entry, list) and not name.startswith("_")]
        return [name for name in named if name not in parts and not name.startswith(("tokenizer", "scheduler"))]

    @property
    def loaded(self) -> bool:
        """Whether the text encoders are in memory."""
        return self._pipeline is not None

    def load(self) -> Any:
        """The stock pipeline with real text encoders; its other networks are shells without weights.

        Raises:
            RequestError: an encoder or a tokenizer is missing or cannot be loaded.
        """
        if self._pipeline is None:
            pipeline_class: Any = _pipeline_class(self.folder)
            parts: dict[str, Any] = {
                name: load_component(self.folder, name, dtype=self.dtype).eval().requires_grad_(False).to(self.device)
                for name in self.names
            }
            parts |= {name: empty_component(self.folder, name) for name in (self.family.network_name, "vae")}
            parts |= dict.fromkeys(self._unused(parts))
            try:
                with quiet_loading():
                    self._pipeline = pipeline_class.from_pretrained(self.folder, **parts)
            except Exception as error:  # tokenizers raise errors of several libraries
                raise RequestError(f"The tokenizers of {self.folder} cannot be loaded: {first_line(error)}") from error
            for name in self.names:
                _limit_tokens(getattr(self._pipeline, name.replace("text_encoder", "tokenizer"), None), parts[name])
        return self._pipeline

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """Encode prompts, padded to one length, in batches of `BATCH`.

        Raises:
            RequestError: a prompt has more tokens than are read, and such prompts are refused.
        """
        pipeline = self.load()
        self._check_lengths(pipeline, prompts)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return Condition.cat(
                [
                    self.family.encode(pipeline, list(prompts[start : start + BATCH]))
                    for start in range(0, len(prompts), BATCH)
                ]
            )

    def _check_lengths(self, pipeline: Any, prompts: Sequence[str]) -> None:
        if self.long_prompts == "cut":
            return
        tokenizer, limit = self.family.token_limit(pipeline)
        for prompt, tokens in zip(prompts, tokenizer(list(prompts)).input_ids, strict=True):
            if len(tokens) > limit:
                shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
                way = f", or have such prompts cut with {self.how_to_cut}" if self.how_to_cut else ""
                raise RequestError(
                    f"The prompt '{shown}' has {len(tokens)} tokens, and the text encoder reads {limit}. "
                    f"Shorten it{way}."
                )

    def release(self) -> None:
        """Free the text encoders; they are loaded again if a prompt must be encoded."""
        self._pipeline = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def to(self, device: torch.device | str) -> PromptEncoder:
        """Move the encoders; returns itself."""
        self.device = torch.device(device)
        if self._pipeline is not None:
            for name in self.names:
                getattr(self._pipeline, name).to(self.device)
        return self


def _limit_tokens(tokenizer: Any, encoder: Any) -> None:
    """A tokenizer that says no length, or more than its text encoder has positions for, is given the encoder's."""
    if tokenizer is None:
        return
    positions, said = getattr(encoder.config, "max_position_embeddings", None), tokenizer.model_max_length
    if isinstance(positions, int) and not (isinstance(said, int) and 0 < said <= positions):
        tokenizer.model_max_length = positions


def _pipeline_class(folder: Path) -> Any:
    import diffusers

    name = str(read_json(folder / "model_index.json").get("_class_name"))
    found = getattr(diffusers, name, None)
    if found is None:
        raise RequestError(f"The installed diffusers has no {name}, which {folder} is. Upgrade diffusers.")
    return found
