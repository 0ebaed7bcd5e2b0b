"""Where images may be, and how they may lie in memory."""

from __future__ import annotations

import torch

from ...errors import RunError
from .probe import Probe
from .verdicts import Verdict, compare, failed, gap, ok, skipped, spread_of, warning


def check_layouts(probe: Probe) -> Verdict:
    """Images that are not contiguous, or channels-last, score as any others."""
    images, prompts = probe.pictures(), probe.prompts()
    expected = probe.score(images, prompts)
    layouts = {
        "channels-last": images.contiguous(memory_format=torch.channels_last),
        "non-contiguous": images.transpose(2, 3).contiguous().transpose(2, 3),
    }
    for name, laid in layouts.items():
        try:
            with torch.no_grad():  # without `Probe.score`, whose copy might lie otherwise
                scores = probe.call(laid.clone(memory_format=torch.preserve_format), prompts).cpu().double()
        except RunError as error:
            return warning(f"With {name} images: {error}", "Write .reshape instead of .view.")
        if compare(scores, expected, spread_of(expected)) == "different":
            return warning(
                f"{name.capitalize()} images have other scores, by up to {gap(scores, expected):.3g}.",
                "Do not look at the memory under a tensor.",
            )
    return ok(f"{' and '.join(layouts).capitalize()} images score like any other.")


def check_bfloat16(probe: Probe) -> Verdict:
    """Images in bfloat16; the toolkit hands out float32, so that this is for others' code."""
    try:
        probe.score(probe.pictures().bfloat16(), probe.prompts())
    except RunError as error:
        return warning(f"With bfloat16 images: {error}", "Begin with images.float(). The toolkit gives float32.")
    return ok("Images in bfloat16 are scored too.")


def other_device(device: torch.device) -> torch.device | None:
    """A device of another kind than this, where there is one."""
    if device.type != "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def check_devices(probe: Probe) -> Verdict:
    """Scores on a GPU are those on the CPU, and the reward comes along."""
    home, other = probe.device, other_device(probe.device)
    if other is None:
        return skipped("There is no GPU here.")
    images, prompts = probe.pictures(), probe.prompts()
    expected = probe.score(images, prompts)
    try:
        probe.move(other)
        scores = probe.score(images.to(other), prompts)
    except RunError as error:
        return failed(f"On {other}: {error}", "Give it a .to(device), or move its network to images.device.")
    finally:
        probe.move(home)
    closeness = compare(scores, expected, spread_of(expected))
    difference = f"Scores on {home} and {other} differ by {gap(scores, expected):.3g}"
    if closeness == "different":
        return failed(f"{difference}.", "Look for networks in half precision, or tensors that stayed behind.")
    if closeness == "near":
        return warning(f"{difference}.", "Half precision and TF32 do that.")
    return ok(f"{difference}, which is rounding.")
