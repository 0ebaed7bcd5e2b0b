"""A run's prompts as conditions: through the cache, in memory or on disk, and the text encoders released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch

from ..config import TrainConfig
from ..diffusion.condition import Condition
from ..distributed import Processes
from ..errors import DippError
from ..models.text_encoders import PromptEncoder, prompt_encoder
from ..protocols import EncoderReference, Reference
from .cache import CachedConditions, PromptCache, chosen_texts, default_cache, encoder_folder

HELD_BYTES = 2**28
"""Encoded training prompts up to this size are held in memory; more are read from the cache batch by batch."""
TEXT_BYTES = 2**8
"""What a prompt's text is taken to cost in memory."""


@dataclass(frozen=True)
class OwnConditions:
    """Prompts of a reference that is not a pipeline, encoded when a batch needs them; indexed like a `Condition`.

    Attributes:
        prompts: the texts, one a row; they may be read from their file themselves.
        reference: encodes them.
        device: batches are moved there.
    """

    prompts: Sequence[str]
    reference: Reference
    device: torch.device

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: Sequence[int] | slice) -> Condition:
        return self.reference.encode(chosen_texts(self.prompts, rows)).to(self.device)


Conditions = Condition | CachedConditions | OwnConditions


def encode_prompts(
    reference: Reference,
    config: TrainConfig,
    prompts: Sequence[str],
    eval_prompts: Sequence[str],
    device: torch.device,
    processes: Processes | None = None,
) -> tuple[Conditions, Condition]:
    """The training prompts and the comparison's, encoded; a pipeline's text encoders are then released.

    Embeddings of a pipeline go through the prompt cache. They stay on disk where they and their prompts would take more
    than `HELD_BYTES` of memory; however many there are, no list of them is made then.

    Args:
        reference: encodes.
        config: names the cache.
        prompts: any number.
        eval_prompts: few.
        device: of the conditions.
        processes: those that call this with the same prompts at the same time. The first one encodes, the others wait,
            and encode only what is not in their cache then, as on another machine with a cache of its own.

    Raises:
        RequestError: a prompt is too long, the text encoders are missing, or the cache cannot be used.
        RunError: the process that encodes failed.
    """
    encoder = prompt_encoder(reference)
    if encoder is None:
        first = reference.encode(list(prompts[:1]))
        reference.null(1)
        eval_conditions = reference.encode(list(eval_prompts)).to(device)
        if _few(first, len(prompts)):
            return reference.encode(list(prompts)).to(device), eval_conditions
        return OwnConditions(prompts, reference, device), eval_conditions
    cache = PromptCache(encoder_folder(config.prompt_cache or default_cache(), encoder))
    _encode(cache, encoder, prompts, eval_prompts, processes or Processes())
    encoder.release()
    source = cast(EncoderReference, reference)
    source.keep_null(source.at_size(cache.read([""]).to(device)))
    eval_conditions = source.at_size(cache.read(eval_prompts).to(device))
    if _few(cache.read(prompts[:1]), len(prompts)):
        return source.at_size(cache.read(prompts).to(device)), eval_conditions
    return CachedConditions(prompts, cache, device, source.at_size), eval_conditions


def _few(row: Condition, count: int) -> bool:
    return count * (sum(tensor.nbytes for tensor in row.tensors.values()) + TEXT_BYTES) <= HELD_BYTES


def _encode(
    cache: PromptCache, encoder: PromptEncoder, prompts: Sequence[str], others: Sequence[str], processes: Processes
) -> None:
    """What is missing; the first process does it while the others wait."""
    failure = None
    if processes.main:
        try:
            cache.encode(encoder, chain(prompts, others, [""]))
        except DippError as error:
            failure = error
    processes.agree(failure)
    if not processes.main:
        cache.encode(encoder, chain(prompts, others, [""]))
