r"""Whether a run is long enough to earn back what compiling its blocks costs.

With $n$ steps, $L$ calls of a piece of the step at $l$ seconds each, and $f$ seconds of its arithmetic, compiling saves

$$n \sum_{\text{pieces}} \big(\max(f, L l) - \max(f, s L l)\big)$$

where $s$ is `LEFT`, the share of calls that compiled blocks leave. `auto` compiles where that is more than `SECONDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import TrainConfig
from ..errors import RequestError
from ..utils.precision import AUTO
from .machines import GPUS, LAUNCH, UTILISATION

if TYPE_CHECKING:
    import torch

    from .estimate import Plan

LEFT = 0.5
"""Share of a step's calls that compiled blocks leave: 0.49 was counted for PixArt (benchmarks/step_cost)."""

SECONDS = 300.0
"""Seconds that compiling all blocks takes: an assumption, for a GPU."""

FEWEST = 200
"""Steps from which a plan is made at all: of fewer, even whole seconds saved a step would not be enough."""

USUAL = "A100"
"""The GPU that is planned for where this one has no published rates here."""


@dataclass(frozen=True)
class CompileChoice:
    """Whether a run's blocks are compiled.

    Attributes:
        name: `on`, `off` or `graphs`.
        reason: why it is this one.
        announced: whether a run says so at its start.
    """

    name: str
    reason: str
    announced: bool = True

    @property
    def note(self) -> str:
        """The sentence at a run's start; empty where there is nothing to say."""
        return f"compile {self.name}: {self.reason}" if self.announced else ""


def choose_compile(config: TrainConfig, device: torch.device, why: str = "as asked") -> CompileChoice:
    """Whether a run's blocks are compiled.

    Args:
        config: resolved settings, the precision included. A `compile` that is not `auto` is kept.
        device: where the passes run.
        why: the reason that is given for a choice that is named.
    """
    from ..distributed import launched_count

    if config.compile != AUTO:
        graphs_on_cpu = config.compile == "graphs" and device.type != "cuda"
        reason = f"{why}; CUDA graphs need a GPU, so blocks are only compiled" if graphs_on_cpu else why
        return CompileChoice(config.compile, reason, announced=config.compile != "off")
    if device.type != "cuda":
        return CompileChoice("off", "passes on this device wait for arithmetic, not for Python", announced=False)
    if launched_count() > 1:
        return CompileChoice("off", "not measured with several processes; compile=on compiles their blocks")
    if config.steps < FEWEST:
        return CompileChoice("off", f"{config.steps} steps are too few to earn the compilation back")
    from .estimate import make_plan

    try:
        plan = make_plan(config)
    except RequestError:
        return CompileChoice("off", "no plan says what a step of these networks waits for; compile=on compiles them")
    saved = saved_seconds(plan, gpu_of(device), config.precision == "fp32")
    return choice_of(config.steps, saved)


def choice_of(steps: int, saved: float) -> CompileChoice:
    """The choice from what is planned.

    Args:
        steps: of the run.
        saved: seconds saved a step.
    """
    planned = f"{steps} steps are planned to save {saved:.2g} s each, and compiling takes about {SECONDS:.0f} s"
    return CompileChoice("on" if steps * saved > SECONDS else "off", planned)


def gpu_of(device: torch.device) -> str:
    """The GPU of `GPUS` that a device is, or `USUAL`."""
    import torch

    name = torch.cuda.get_device_name(device)
    return next((gpu for gpu in GPUS if gpu in name), USUAL)


def saved_seconds(plan: Plan, gpu: str, float32: bool = False) -> float:
    """Seconds of a step that compiled blocks are planned to save.

    Args:
        plan: of the step, eager.
        gpu: one of `GPUS`.
        float32: whether passes are in float32.
    """
    rate = GPUS[gpu][1 if float32 else 0] * 1e12 * UTILISATION
    pieces = plan.pieces[gpu]
    return sum(
        max(0.0, seconds - max(plan.flops[piece] / rate, LEFT * plan.launches[piece] * LAUNCH))
        for piece, seconds in pieces.items()
        if seconds <= plan.launches[piece] * LAUNCH
    )
