"""The hooks that plugins implement (pluggy project `dipp`).

A plugin is any module, named in the entry-point group `dipp`, that decorates functions of these names with
`dipp_toolkit.hookimpl`. Importing it must be cheap: registering names a factory, often as the string
`"module:attribute"`, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pluggy

if TYPE_CHECKING:
    from .events import CheckpointEvent, MonitorEvent, RunEndEvent, RunStartEvent, StepEvent, WarmUpEvent
    from .utils.licences import Origin

PROJECT = "dipp"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@runtime_checkable
class Register(Protocol):
    """The function a plugin registers with."""

    def __call__(
        self,
        name: str,
        factory: Any,
        *,
        summary: str = "",
        needs: tuple[str, ...] = (),
        defaults: Mapping[str, Any] | None = None,
        origin: Origin | None = None,
        described: Any = None,
    ) -> None:
        """Register a factory.

        Args:
            name: what people type.
            factory: a callable, or `"module:attribute"` naming one; options arrive as keyword arguments.
            summary: one line for `dipp plugins`.
            needs: importable packages without which the factory cannot work.
            defaults: settings (names of `TrainConfig` fields) recommended with it, used where the user says nothing.
            origin: the repository its weights are published in, and their licence.
            described: of a reward, a class or `"module:attribute"` that says what `DescribedReward` asks for, where the
                factory itself does not.
        """


@hookspec
def dipp_register_pipelines(register: Register) -> None:
    """Register the family of a diffusers pipeline class, under the class's name."""


@hookspec
def dipp_register_blueprints(register: Register) -> None:
    """Register what `dipp plan` builds a name from without weights; a factory returns a blueprint.

    The name is that of a reference, a generator or a reward; see `dipp_toolkit.models.blueprints`.
    """


@hookspec
def dipp_register_references(register: Register) -> None:
    """Register references; a factory returns a `Reference`."""


@hookspec
def dipp_register_generators(register: Register) -> None:
    """Register generators; a factory returns a `Generator`."""


@hookspec
def dipp_register_rewards(register: Register) -> None:
    """Register rewards; a factory returns a `Reward`."""


@hookspec
def dipp_register_environments(register: Register) -> None:
    """Register what a reward's private environment is made of; a factory returns an `Environment`.

    See `dipp_toolkit.rewards.isolated.environments`.
    """


@hookspec
def dipp_register_terms(register: Register) -> None:
    """Register terms; a factory takes a `TermContext` and returns a `Term`."""


@hookspec
def dipp_register_prompts(register: Register) -> None:
    """Register prompt sets; a factory returns a `PromptSet`."""


@hookspec
def dipp_register_metrics(register: Register) -> None:
    """Register metrics; a factory returns a `Metric`."""


@hookspec
def dipp_register_recipes(register: Register) -> None:
    """Register recipes; a factory returns a `Recipe`.

    A folder of them is registered by `dipp_toolkit.planning.recipes.files.register_recipes`.
    """


@hookspec
def dipp_register_commands(app: Any) -> None:
    """Add commands to the Typer application."""


@hookspec
def dipp_on_run_start(event: RunStartEvent) -> None:
    """A run begins, or resumes."""


@hookspec
def dipp_on_warm_up(event: WarmUpEvent) -> None:
    """An update of the assistant before the generator's first is done."""


@hookspec
def dipp_on_step(event: StepEvent) -> None:
    """A generator update is done."""


@hookspec
def dipp_on_monitor(event: MonitorEvent) -> None:
    """The monitors looked at the held-out prompts."""


@hookspec
def dipp_on_checkpoint(event: CheckpointEvent) -> None:
    """A checkpoint is whole on disk."""


@hookspec
def dipp_on_run_end(event: RunEndEvent) -> None:
    """A run is over and its folder complete."""
