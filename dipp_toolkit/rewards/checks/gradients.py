"""Whether a reward has a gradient, declares it, and whether the gradient is right."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError
from .answers import unusual
from .probe import Probe, smooth_noise
from .verdicts import Verdict, failed, ok, skipped, warning

STEPS = (1e-2, 1e-3, 3e-2, 1e-4, 1e-1, 1e-5)
"""Sizes of the differences, in root-mean-square pixel values, the likeliest to work first."""

TOLERANCE, LIMIT = 2e-2, 0.1
"""Relative errors of a directional derivative up to which all is well, and beyond which the gradient is wrong."""

FLAT = 0.05
"""Directions whose cosine with the gradient is below this are measured as if it were this: rounding rules there."""

ROUNDING = 2**-23

WITH_TORCH = (
    "Compute the score from the images with torch, without .detach(), .numpy() or torch.no_grad(), or declare "
    "differentiable = False."
)


def check_declared(probe: Probe) -> Verdict:
    """What the reward says of its gradient against what its scores show; sets `probe.has_gradient`."""
    declared, raised = probe.reward.differentiable, ""
    probe.has_gradient, has_graph = False, False
    try:
        scores, gradient = _with_graph(probe)
        probe.has_gradient, has_graph = gradient is not None, scores.requires_grad
    except RunError as error:  # NumPy refuses tensors with a graph; a black box never gets any
        raised = f" Where images require a gradient: {error}"
    if has_graph and not probe.has_gradient:
        return failed(
            "Its scores have a graph that does not lead to the images, so training finds no gradient.", WITH_TORCH
        )
    return _with_gradient(declared) if probe.has_gradient else _without_gradient(declared, raised)


def _with_gradient(declared: bool | None) -> Verdict:
    if declared is False:
        return warning(
            "It declares itself not differentiable, but has a gradient, which training will not use.",
            "Declare differentiable = True if the gradient is meant.",
        )
    return ok("Its scores have a gradient with respect to the images" + (", as it declares." if declared else "."))


def _without_gradient(declared: bool | None, raised: str) -> Verdict:
    if declared:
        return failed(f"It declares itself differentiable, but its scores have no gradient.{raised}", WITH_TORCH)
    if declared is False:
        return ok("No gradient, as it declares: it will be trained as a black box.")
    return warning(f"No gradient: it will be trained as a black box.{raised}", WITH_TORCH)


def _with_graph(probe: Probe) -> tuple[Tensor, Tensor | None]:
    with torch.enable_grad():
        leaf = probe.pictures().requires_grad_(True)
        scores = probe.call(leaf.clone(), probe.prompts())
        if not scores.requires_grad:
            return scores, None
        return scores, torch.autograd.grad(scores.sum(), leaf, allow_unused=True)[0]


def check_gradient(probe: Probe) -> Verdict:
    """Finite on every kind of picture, and not zero on ordinary ones."""
    for name, images in {"ordinary": probe.pictures(), **unusual(probe)}.items():
        gradient = _gradient(probe, images)
        if not bool(torch.isfinite(gradient).all()):
            return failed(
                f"The gradient is not finite on {name} pictures.",
                "Put a small constant under roots and norms: the derivative of sqrt at 0 is infinite.",
            )
    sizes = _gradient(probe, probe.pictures()).square().mean((1, 2, 3)).sqrt()
    if not bool(sizes.any()):
        return failed(
            "The gradient is zero everywhere.", "Rounding, comparisons, clamping and selection have no gradient."
        )
    if not bool(sizes.all()):
        flat = int((sizes == 0).sum())
        return warning(f"The gradient is zero on {flat} of {len(sizes)} pictures.", "Training cannot improve those.")
    return ok(f"Finite on pictures of all kinds; root mean square {sizes.min():.3g} to {sizes.max():.3g} a pixel.")


def check_differences(probe: Probe) -> Verdict:
    r"""The gradient $g$ against central differences along directions $v$: $(r(x + h v) - r(x - h v)) / 2h = g^T v$.

    Directions are the gradient's own, and two random smooth ones, all of unit root mean square. Errors are over the
    images of a batch together, relative to $|g^T v|$ or, where $v$ is nearly orthogonal to $g$, to a twentieth of
    $|g| |v|$. Of several step sizes $h$ the best counts: large ones meet curvature, small ones rounding.
    """
    if getattr(probe.reward, "holds_fixed", False):
        return skipped("Its gradient holds what it takes of the whole group fixed, as it says.")
    images, prompts = probe.pictures(), probe.prompts()
    gradient = _gradient(probe, images).double()
    random = probe.random(21)
    directions = {"its own direction": gradient}
    for name in ("a random direction", "another random direction"):
        directions[name] = smooth_noise(len(images), (probe.size, probe.size), random, cells=8).to(gradient)
    worst, errors, blind = 0.0, [], False
    for name, direction in directions.items():
        unit = direction / direction.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)
        error, visible = _error(probe, images, prompts, gradient, unit)
        worst, blind = max(worst, error), blind or not visible
        errors.append(f"{error:.2g} along {name}")
    finding = f"Relative error against central differences: {', '.join(errors)}."
    if worst <= TOLERANCE:
        return ok(finding)
    if blind:
        return warning(
            f"{finding} The scores are too large, and change too little, for float32 to tell.", "Subtract a constant."
        )
    if worst <= LIMIT:
        return warning(finding, "Half precision or kinks do that. If it has neither, part of the score is detached.")
    return failed(
        finding,
        "The gradient is not that of the score: look for .detach(), straight-through rounding, or a mistake in a "
        "backward of your own.",
    )


def _error(probe: Probe, images: Tensor, prompts: list[str], gradient: Tensor, unit: Tensor) -> tuple[float, bool]:
    """The best relative error along a direction, and whether float32 scores could have shown a good one."""
    expected = (gradient * unit).sum((1, 2, 3)).cpu()
    steepest = gradient.flatten(1).norm(dim=1) * unit.flatten(1).norm(dim=1)
    scale = max(expected.norm().item(), FLAT * steepest.norm().item())
    best, largest = float("inf"), 0.0
    for step in STEPS:
        shift = (step * unit).to(images)
        up, down = probe.score(images + shift, prompts), probe.score(images - shift, prompts)
        largest = max(largest, up.abs().max().item())
        best = min(best, ((up - down) / (2 * step) - expected).norm().item() / scale)
        if best <= TOLERANCE / 4:
            break
    return best, ROUNDING * largest / max(STEPS) <= TOLERANCE * scale


def check_own_gradient(probe: Probe) -> Verdict:
    """The gradient of one image's score is zero on the other images."""
    with torch.enable_grad():
        leaf = probe.pictures().requires_grad_(True)
        scores = probe.call(leaf.clone(), probe.prompts())
        (gradient,) = torch.autograd.grad(scores[0], leaf, allow_unused=True)
    sizes = [0.0] * len(leaf) if gradient is None else gradient.flatten(1).norm(dim=1).tolist()
    leaked = max(sizes[1:])
    if leaked > 1e-4 * sizes[0]:
        return failed(
            f"The gradient of an image's score reaches other images: {leaked:.2g} against {sizes[0]:.2g} on its own.",
            "Let a score depend on its own image alone: no statistics over the batch.",
        )
    return ok("The gradient of a score stays on its own image.")


def _gradient(probe: Probe, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    gradient = probe.gradient(images, probe.prompts())[1]
    if gradient is None:
        raise RunError("Its scores have a gradient in some calls and not in others.")
    return gradient
