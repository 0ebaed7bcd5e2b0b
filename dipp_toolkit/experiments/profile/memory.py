"""Bytes that stay through a run, by what holds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...training.assistant import LearnedAssistant
from ...training.setup.assembly import Assembled


def held_by_owner(parts: Assembled) -> dict[str, int]:
    """Bytes of weights and states on the run's device, by owner; what two of them share counts with the first.

    Gradients are not among them: they live for an update.

    Args:
        parts: of a run that has made a step, so that the optimisers have states.
    """
    seen: set[int] = set()
    learned = parts.assistant if isinstance(parts.assistant, LearnedAssistant) else None
    owners: dict[str, Iterable[Tensor]] = {
        "reference": _of_network(parts.reference.denoiser.network),
        "generator": _of_network(parts.generator.network),
        "assistant": _of_state(parts.assistant.state_dict())
        if learned is None
        else _of_network(learned.denoiser.network),
        "optimiser states": [
            *_of_state(parts.engine.optimizer.state),
            *_of_state({} if learned is None else learned.optimizer.state),
        ],
        "weight average": _of_state(parts.average.state_dict()),
        "decoder": _of_parts(getattr(parts.reference, "vae", None)),
        "text encoder": _of_parts(getattr(parts.reference, "encoder", None)),
        **{f"reward {name}": _of_parts(reward) for name, reward in parts.rewards.items()},
    }
    return {name: count for name, count in ((name, _bytes(own, parts, seen)) for name, own in owners.items()) if count}


def _bytes(tensors: Iterable[Tensor], parts: Assembled, seen: set[int]) -> int:
    total = 0
    for tensor in tensors:
        if tensor.device.type != parts.device.type:
            continue
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        storage = local.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            total += storage.nbytes()
    return total


def _of_network(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _of_state(state: Any) -> Iterator[Tensor]:
    """Every tensor in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _of_state(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _of_state(value)


def _of_parts(thing: Any) -> Iterator[Tensor]:
    """The tensors of a module, or of the modules and tensors among an object's attributes."""
    if isinstance(thing, nn.Module):
        yield from _of_network(thing)
    elif hasattr(thing, "__dict__"):
        for value in vars(thing).values():
            if isinstance(value, nn.Module):
                yield from _of_network(value)
            elif isinstance(value, Tensor):
                yield value


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has; 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
