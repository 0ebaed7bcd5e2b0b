"""A run's prompts as conditions: through the cache, in memory or on disk, and the text encoders released."""

from __future__ import annotations

from typing import Any, cast

import torch

from .condition import Condition
from .config import TrainConfig
from .prompt_cache import CachedConditions, PromptCache, default_cache, encoder_folder
from .prompt_encoder import PromptEncoder
from .roles import Reference

HELD_BYTES = 2**28
"""Encoded training prompts up to this size are held in memory; more are read from the cache batch by batch."""

Conditions = Condition | CachedConditions


def encode_prompts(
    reference: Reference, config: TrainConfig, prompts: list[str], eval_prompts: list[str], device: torch.device
) -> tuple[Conditions, Condition]:
    """The training prompts and the comparison's, encoded; a pipeline's text encoders are then released.

    Embeddings of a pipeline go through the prompt cache. They stay on disk where they would take more than
    `HELD_BYTES` of memory.
    """
    encoder = getattr(reference, "encoder", None)
    if not isinstance(encoder, PromptEncoder):
        conditions: Conditions = reference.encode(prompts).to(device)
        eval_conditions = reference.encode(eval_prompts).to(device)
        reference.null(1)
        return conditions, eval_conditions
    cache = PromptCache(encoder_folder(config.prompt_cache or default_cache(), encoder))
    cache.encode(encoder, [*prompts, *eval_prompts, ""])
    encoder.release()
    cast(Any, reference).null_condition = cache.read([""]).to(device)
    one = cache.read(prompts[:1])
    size = len(prompts) * sum(tensor.nbytes for tensor in one.tensors.values())
    if size <= HELD_BYTES:
        return cache.read(prompts).to(device), cache.read(eval_prompts).to(device)
    return CachedConditions(tuple(prompts), cache, device), cache.read(eval_prompts).to(device)
