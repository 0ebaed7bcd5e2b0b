"""What a reward leaves behind: changed inputs, gradients, switches of torch, random numbers drawn from everybody's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .modules import modules_of
from .probe import Probe, undisturbed
from .verdicts import Verdict, failed, ok, warning


def check_inputs_unchanged(probe: Probe) -> Verdict:
    """The images and the list of prompts are as they were, without and with gradients."""
    images, prompts = probe.pictures(), probe.prompts()
    copies, listed = images.clone(), list(prompts)
    with torch.no_grad():
        probe.call(copies, listed)
    in_graph = images.clone().requires_grad_(True).clone() if probe.has_gradient else copies
    if probe.has_gradient:
        with torch.enable_grad():
            probe.call(in_graph, listed)
    if not torch.equal(copies, images) or not torch.equal(in_graph.detach(), images) or copies.requires_grad:
        return failed(
            "It changes the images that it is given.", "Work on a copy: images * 2 - 1, not images.mul_(2).sub_(1)."
        )
    if listed != prompts:
        return failed("It changes the list of prompts that it is given.", "Work on a copy: list(prompts).")
    return ok("Images and prompts are left as they were.")


def check_global_state(probe: Probe) -> Verdict:
    """Grad mode and default dtype are as they were, and no tensor has collected a gradient."""
    parameters = [parameter for module in modules_of(probe.reward) for parameter in module.parameters()]
    before = [parameter.grad for parameter in parameters]
    with undisturbed(), torch.enable_grad():
        dtype = torch.get_default_dtype()
        leaf = probe.pictures().requires_grad_(bool(probe.has_gradient))
        # Without `Probe.call`, which would put everything back.
        probe.reward(leaf.clone(), probe.prompts())
        grad_mode, found_dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    if not grad_mode:
        return failed(
            "It switches gradients off globally, which stops training.",
            "Write with torch.no_grad(): instead of torch.set_grad_enabled(False).",
        )
    if found_dtype != dtype:
        return failed(
            f"It sets torch's default dtype to {found_dtype}.", "Give tensors their dtype where they are made."
        )
    collected = sum(parameter.grad is not old for parameter, old in zip(parameters, before, strict=True))
    if collected or leaf.grad is not None:
        where = "the images" if leaf.grad is not None else f"{collected} of its parameters"
        return failed(
            f"It leaves gradients on {where}.",
            "Do not call .backward(): training computes the gradients.",
        )
    trainable = sum(parameter.requires_grad for parameter in parameters)
    if trainable:
        return warning(
            f"{trainable} of its parameters require gradients, which nobody will use.",
            "Call .requires_grad_(False) on its networks: that saves memory and time.",
        )
    return ok("Grad mode, default dtype and gradients are left as they were.")


def check_random_state(probe: Probe) -> Verdict:
    """A run is reproducible because nobody but the engine draws from the global sources."""
    before = _random_states()
    probe.score(probe.pictures(), probe.prompts())
    changed = [name for name, state in _random_states().items() if not _equal(state, before[name])]
    if changed:
        return warning(
            f"It draws from, or seeds, the random numbers of {' and '.join(changed)} that the whole process shares.",
            "Use a torch.Generator of its own.",
        )
    return ok("The shared random numbers are left as they were.")


def _random_states() -> dict[str, object]:
    numpy_state = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "NumPy": (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),  # type: ignore[index, union-attr]
    }


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first == second
