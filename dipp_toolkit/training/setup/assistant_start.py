"""How a run's assistant starts: the times that it learns, and how long it is warmed up unless that is set."""

from __future__ import annotations

from ...config import TrainConfig
from ...diffusion.times import Sampling, find_sampling
from ...errors import RequestError
from ...models.files.saved_generators import saved_generator
from ...models.published import PublishedPipeline
from ...monitoring.interval import are_small, folders_of
from ...registry import get_registry
from ...utils.imports import is_python_name

UPDATES = 500
"""Assistant updates before the generator's first, for a network of full size that starts as the reference's.

No published number was found: DMD2, SiD and SIM begin with generator and assistant alike, and both learn from
there for the whole of a long distillation, while here a finished generator is aligned in some hundreds of updates. On
the emoji world an assistant that starts as the reference and learns at the run's own rate predicts the generator's
samples worse than the reference does for its first 400 updates (docs/guide/real-models.md).
"""
ASSISTANT = "assistant"
"""The folder beside a generator that holds the assistant it was trained with."""


def assistant_times(config: TrainConfig) -> Sampling:
    """How the assistant's times are drawn: by its own law, by default uniformly over those of the divergence.

    Raises:
        RequestError: there is no such time sampling; the message names the nearest.
    """
    low, high = config.assistant_time_range or config.time_range
    return find_sampling(config.assistant_time_sampling, low, high)


def check_assistant_times(config: TrainConfig) -> None:
    """Refuse an assistant that would be evaluated at times that it never learns.

    Raises:
        RequestError: its range leaves out times of the divergence, or its time sampling does not exist.
    """
    assistant_times(config)
    if config.assistant_time_range is None:
        return
    (low, high), (first, last) = config.assistant_time_range, config.time_range
    if low > first or high < last:
        raise RequestError(
            f"assistant_time_range={low:g},{high:g} leaves out times between {first:g} and {last:g}, at which the "
            "divergence is evaluated and the assistant would not have learnt anything. Use, for example, "
            f"--set assistant_time_range={min(low, first):g},{max(high, last):g}"
        )


def usual_warm_up(generator: str | None, reference: str | None, steps: int) -> int:
    """Assistant updates before the generator's first.

    A generator whose assistant is saved with it needs none. A published one, and any other of full size in a folder or
    on the hub, has none, and its samples are not the reference's; nor are those of the reference's own network, read
    once. It gets `UPDATES`, but no more than the run has generator updates, so that a short trial stays short. Networks
    of a user's own, small ones, and those that a plugin recommends settings with get none: how long they need is not
    known here, and the run says that its assistant starts as the reference.

    Args:
        generator: its name, as typed; None for the reference's own network.
        reference: its name, as typed.
        steps: generator updates of the run.
    """
    name = generator or reference
    return min(UPDATES, steps) if name is not None and _is_of_full_size(name) else 0


def _is_of_full_size(name: str) -> bool:
    """Whether this is a pipeline of full size without a trained assistant beside it."""
    registry = get_registry()
    entry = registry.entries["generator"].get(name) or registry.entries["reference"].get(name)
    if entry is not None:
        return isinstance(entry.factory, PublishedPipeline)
    if is_python_name(name) or saved_generator(name) is not None:
        return False
    folders = folders_of(name)
    return not any((folder / ASSISTANT).is_dir() for folder in folders) and not are_small(folders)
