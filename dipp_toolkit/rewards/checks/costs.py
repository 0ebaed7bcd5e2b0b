"""What a reward costs: seconds, memory, parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from .modules import modules_of
from .probe import BATCH, Probe
from .verdicts import Verdict, ok, skipped, warning

MIB = 2**20


def check_speed(probe: Probe) -> Verdict:
    """Images a second, without and with gradients, after a warm-up."""
    images, prompts = probe.pictures(), probe.prompts()
    rates = [f"{images_a_second(probe, lambda: probe.score(images, prompts)):.3g} images a second without gradients"]
    if probe.has_gradient:
        rates.append(f"{images_a_second(probe, lambda: probe.gradient(images, prompts)):.3g} with")
    return ok(f"{', '.join(rates)}, on {probe.device}, batches of {BATCH}, {probe.size}x{probe.size} pixels.")


def images_a_second(probe: Probe, call: Callable[[], Any]) -> float:
    """The rate of a call that scores a batch, after one call that does not count."""
    call()
    _wait(probe.device)
    start, done = perf_counter(), 0
    while not done or perf_counter() - start < probe.seconds:
        call()
        _wait(probe.device)
        done += BATCH
    return done / max(perf_counter() - start, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def check_memory(probe: Probe) -> Verdict:
    """What one call with a gradient needs: the peak on a GPU; elsewhere, what its graph holds until the backward.

    On a CPU the process's peak is of little use, as it never falls: what an earlier call took hides what this one
    takes. What autograd saves can be counted exactly, and grows with the batch.
    """
    images, prompts = probe.pictures(), probe.prompts()
    if probe.device.type == "cuda":
        torch.cuda.empty_cache()
        base = torch.cuda.memory_allocated(probe.device)
        torch.cuda.reset_peak_memory_stats(probe.device)
        probe.gradient(images, prompts) if probe.has_gradient else probe.score(images, prompts)
        _wait(probe.device)
        peak = (torch.cuda.max_memory_allocated(probe.device) - base) / MIB
        return ok(f"At most {peak:.3g} MiB of {probe.device} beside its weights, for a batch of {BATCH}.")
    process = f"the process's peak is {process_peak():.4g} MiB"
    if not probe.has_gradient:
        return ok(f"No graph; {process}.")
    return ok(f"The graph of a batch of {BATCH} holds {saved_bytes(probe) / MIB:.3g} MiB; {process}.")


def saved_bytes(probe: Probe) -> int:
    """Bytes that autograd keeps for the backward, each storage once, the reward's own weights left out."""
    own = {
        weight.untyped_storage().data_ptr()
        for module in modules_of(probe.reward)
        for weight in module.state_dict().values()
    }
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = probe.call(probe.pictures().requires_grad_(True).clone(), probe.prompts())
        del scores
    return sum(storages.values())


def process_peak() -> float:
    """Largest resident memory that this process ever had, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 2**10)


def check_parameters(probe: Probe) -> Verdict:
    """How many parameters its networks have, and whether they are in evaluation mode."""
    modules = modules_of(probe.reward)
    if not modules:
        return skipped("No torch network was found in it.")
    parameters = [parameter for module in modules for parameter in module.parameters()]
    count = sum(parameter.numel() for parameter in parameters)
    size = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    finding = f"{count:,} parameters, {size / MIB:.3g} MiB."
    if any(part.training for module in modules for part in module.modules()):
        return warning(f"{finding} A network is in training mode.", "Call .eval() on it.")
    return ok(finding)
