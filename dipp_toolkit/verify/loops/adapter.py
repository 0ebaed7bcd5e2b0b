"""An adapter for a training loop: its attributes, how it is found and called, and its errors."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from ...diffusion.predictions import Prediction
from ...errors import DippError, PluginError, RunError
from ...utils.exception_text import raised
from ...utils.imports import load_python_name
from ...utils.messages import unknown_name
from .chain import Sampler
from .levels import TRAINING_TIMES, Forward

LOOP_CASES = ("distillation", "guidance", "linear")
"""Of `dipp_toolkit.verify.CASES`, those a loop can be run on."""

DEFAULT_CASES = ("distillation", "guidance")

MOST_STEPS = 8


@dataclass(frozen=True)
class Adapter:
    r"""What an adapter says about its loop, as attributes of the class or function that is named.

    Attributes:
        name: as typed.
        make: called with a world; gives an object with `step()`, or a function of no arguments that is one step, or
            is a function that is one step itself, and gives nothing.
        prediction: what its networks predict.
        schedule: `vp` or `flow`.
        timesteps: at which its sampler reads the generator, the noisiest first.
        sampler: `renoise` or `ode`: how its sampler goes on from one step to the next.
        cases: those it can do: `distillation`, `guidance` (it reads `world.guidance`), `linear` (it reads
            `world.reward`).
        weighting: `weighting(alpha, sigma)`: what stands before $\hat x_0^{fake} - \hat x_0^{ref}$ in the gradient on a
            sample, the loss being a mean over the batch; None where it is not stated.
    """

    name: str
    make: Callable[[Any], Any]
    prediction: Prediction = "epsilon"
    schedule: Forward = "vp"
    timesteps: tuple[float, ...] = (TRAINING_TIMES - 1,)
    sampler: Sampler = "renoise"
    cases: tuple[str, ...] = DEFAULT_CASES
    weighting: Callable[[Any, Any], Any] | None = None


def find_adapter(loop: str | Callable[[Any], Any]) -> Adapter:
    """The adapter that `file.py:NAME` or `module:NAME` names, or that a class or function is.

    Raises:
        PluginError: it is missing, or one of its attributes is invalid.
    """
    name = loop if isinstance(loop, str) else getattr(loop, "__name__", type(loop).__name__)
    named = load_python_name(loop, "loop") if isinstance(loop, str) else loop
    if not callable(named):
        raise PluginError(
            f"The loop '{name}' is a {type(named).__name__}; expected a class, or a function, that is called with the "
            "world and gives an object with a method step()."
        )
    try:
        inspect.signature(named).bind(object())
    except TypeError:
        raise PluginError(
            f"The loop '{name}' has the signature {inspect.signature(named)}; expected one argument, the world."
        ) from None
    except ValueError:  # what is written in C says nothing of its arguments
        pass
    adapter = Adapter(name, named)
    return Adapter(
        name,
        named,
        _choice(named, name, "prediction", adapter.prediction, get_args(Prediction)),
        schedule := _choice(named, name, "schedule", adapter.schedule, get_args(Forward)),
        _timesteps(getattr(named, "timesteps", None), name, schedule),
        _choice(named, name, "sampler", adapter.sampler, get_args(Sampler)),
        tuple(_case(case, name) for case in _several(getattr(named, "cases", adapter.cases), name)),
        _weighting(named, name),
    )


def _choice(named: Any, name: str, attribute: str, default: Any, choices: Sequence[str]) -> Any:
    value = getattr(named, attribute, default)
    if value not in choices:
        raise PluginError(f"The loop '{name}' has {attribute}={value!r}; expected one of {', '.join(choices)}.")
    return value


def _several(cases: Any, name: str) -> Sequence[str]:
    if isinstance(cases, str):
        return (cases,)
    if not isinstance(cases, Sequence) or not cases:
        raise PluginError(f"The loop '{name}' has cases={cases!r}; expected names out of {', '.join(LOOP_CASES)}.")
    return cases


def _case(case: Any, name: str) -> str:
    if case not in LOOP_CASES:
        raise PluginError(f"The loop '{name}': {unknown_name('case', str(case), LOOP_CASES)}")
    return str(case)


def _weighting(named: Any, name: str) -> Callable[[Any, Any], Any] | None:
    weighting = getattr(named, "weighting", None)
    if weighting is not None and not callable(weighting):
        raise PluginError(
            f"The loop '{name}' has a weighting that cannot be called; expected weighting(alpha, sigma), a static "
            "method."
        )
    return weighting


def _timesteps(value: Any, name: str, schedule: Forward) -> tuple[float, ...]:
    last = TRAINING_TIMES - 1 if schedule == "vp" else TRAINING_TIMES
    if value is None:
        return (float(last),)
    try:
        times = tuple(float(time) for time in value)
    except (TypeError, ValueError):
        times = ()
    falling = all(first > second for first, second in itertools.pairwise(times))
    if not times or len(times) > MOST_STEPS or not falling or not (times[-1] >= 1 and times[0] <= last):
        raise PluginError(
            f"The loop '{name}' has timesteps={value!r}; expected 1 to {MOST_STEPS} falling numbers between 1 and "
            f"{last}, such as (999, 749, 499, 249)."
        )
    return times


def call(adapter: Adapter, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call something of the adapter's.

    Raises:
        RunError: it raised; the message says what, and in which line.
    """
    try:
        return function(*arguments)
    except DippError as error:
        raise RunError(f"The loop '{adapter.name}' failed in {what}: {error}") from error
    except (Exception, SystemExit) as error:  # anybody's code
        raise RunError(f"The loop '{adapter.name}' failed in {what} with {raised(error)}.") from error


def make_loop(adapter: Adapter, world: Any) -> tuple[Callable[[], Any], Callable[[int], Any] | None]:
    """The loop's step, and its sampler where it has one.

    Raises:
        PluginError: what the adapter makes has no `step()`.
        RunError: it raised.
    """
    made = call(adapter, "its setup", adapter.make, world)
    if made is None and inspect.isfunction(adapter.make):  # the function is the step itself
        return partial(adapter.make, world), None
    step = getattr(made, "step", made)
    if not callable(step):
        raise PluginError(
            f"The loop '{adapter.name}' made a {type(made).__name__} without a method step(); expected an object whose "
            "step() trains once: the fake score's updates and the generator's."
        )
    sample = getattr(made, "sample", None)
    return step, sample if callable(sample) else None
