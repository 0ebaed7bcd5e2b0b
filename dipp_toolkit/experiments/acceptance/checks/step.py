"""Step: one update of the assistant and of the generator runs, is finite, and takes the memory that was planned."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ....errors import DippError
from ....training.stepping import StopRequest
from ..check import Check, Outcome, failed, judged, skipped
from ..settings import public_term
from ..subject import Subject

if TYPE_CHECKING:
    from ....training.loop import TrainingLoop

MOST_ABOVE_PLAN = 1.15
"""Times the planned peak; the plan itself leaves 5 % and was 4 % off on an H100."""
GIB = 2**30


def run(subject: Subject) -> Iterator[Outcome]:
    """A row for the update, and one for its memory."""
    loop = _begun(subject)
    cuda = subject.device.type == "cuda"
    started = time.perf_counter()
    row = loop.one_step()
    if cuda:
        torch.cuda.synchronize(subject.device)
    seconds = time.perf_counter() - started
    subject.first_step = row
    finite = not loop.skipped and all(map(math.isfinite, row.values()))
    norms = {name: value for name, value in row.items() if name.startswith("grad_norm/")}
    gradients = ", ".join(
        f"{public_term(name.removeprefix('grad_norm/'))} {value:.3g}" for name, value in norms.items()
    )
    numbers = {"finite": float(finite), "seconds": seconds, "batch": float(loop.batch)}
    if "divergence" in row:
        numbers["divergence"] = row["divergence"]
    yield judged(
        "a generator update",
        "finite numbers, followed",
        f"{seconds:.2f} s; gradients: {gradients or 'none'}",
        numbers,
        {"finite": (1.0, 1.0)},
        f"It was not followed: {'; '.join(loop.skipped) or 'a number is not finite'}.",
    )
    yield memory_outcome(subject, row["memory_mb"] / 1024)


def _begun(subject: Subject) -> TrainingLoop:
    """The short alignment, before its first update; images before it are made on the way."""
    from ....training.finishing import one_step_images
    from ....training.loop import TrainingLoop
    from ....training.run_state.run_folder import RunFolder
    from ....training.setup.assembly import assemble
    from ....utils.reproducibility import seed_everything

    subject.free()
    config = subject.usable_config
    if subject.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(subject.device)
    seed_everything(config.seed)
    parts = assemble(config)
    subject.before = one_step_images(parts, parts.generator, config)
    loop = TrainingLoop(config, parts, RunFolder(subject.scratch / "run"))
    seed_everything(config.seed)
    loop.warm_assistant(StopRequest())
    subject.trial = loop
    if subject.device.type == "cuda":  # from here on it is the step's
        torch.cuda.reset_peak_memory_stats(subject.device)
    return loop


def memory_outcome(subject: Subject, measured: float) -> Outcome:
    """The step's peak beside the plan's, in GiB."""
    what = "memory of the update"
    if subject.device.type != "cuda":
        return skipped(what, f"On a {subject.device.type} the peak is the whole process's, earlier checks included.")
    from ....planning.estimate import make_plan

    try:
        plan = make_plan(subject.usable_config)
    except DippError as error:
        return skipped(what, f"Nothing to hold it against: {error}")
    if plan.uncounted:
        return skipped(what, f"The plan does not count {', '.join(plan.uncounted)}.")
    tensors = (plan.peak - plan.resident["process"]) / GIB
    if measured <= 0:
        return failed(what, "The device says that nothing was used.")
    why = "The update takes more than was planned: a machine that should hold it by dipp plan may not."
    numbers = {"measured_gib": measured, "planned_gib": tensors, "of_plan": measured / tensors}
    return judged(
        what, f"{tensors:.2f} GiB of tensors planned", f"{measured:.2f} GiB", numbers,
        {"of_plan": (0.0, MOST_ABOVE_PLAN)}, why,
    )  # fmt: skip


CHECK = Check("step", 50, run, "one update runs, is finite, and takes the planned memory")
