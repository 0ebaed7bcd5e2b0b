"""Who hears of a run's events: plugins' hooks, listeners, and experiment trackers (`docs/reference/trackers.md`)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import RunError, first_line
from ..events import RunEndEvent, RunStartEvent, StepEvent
from ..registry import get_registry
from ..utils.packages import missing_of, not_installed

PROJECT = "dipp"
FOLDERS = (PROJECT, "wandb")
"""What trackers leave in a run folder: `dipp/` is tensorboard's, which calls it by the project."""


class Broadcast:
    """Passes a run's events to the plugins' hooks and to the listeners of this run.

    Args:
        listeners: of this run.
        speaks: whether this is the process that reports the run's events.
    """

    def __init__(self, listeners: Sequence[object], speaks: bool = True):
        self.hook, self.listeners, self.speaks = get_registry().manager.hook, listeners, speaks

    def __call__(self, name: str, event: object) -> None:
        if not self.speaks:
            return
        getattr(self.hook, name)(event=event)
        for listener in self.listeners:
            method = getattr(listener, name, None)
            if method is not None:
                method(event)


class Trackers:
    """A listener that logs every step's numbers to accelerate's trackers.

    Args:
        names: of the trackers.

    Raises:
        PluginError: a tracker's package is not installed.
    """

    def __init__(self, names: tuple[str, ...]):
        for name in names:
            if missing_of([name]):
                raise not_installed(f"The tracker '{name}' needs", [name], extra=name)
        self.names = names

    def dipp_on_run_start(self, event: RunStartEvent) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(
            log_with=list(self.names), project_dir=event.folder, cpu=event.config.device == "cpu"
        )
        settings = {
            name: value if isinstance(value, (int, float, str, bool)) else json.dumps(value)
            for name, value in event.config.model_dump(mode="json").items()
        }
        # A run is called as its folder, and wandb's files go there and not where the command was typed.
        named = {"name": event.folder.resolve().name}
        words = {"wandb": {**named, "dir": str(event.folder)}, "trackio": named}
        try:
            self.accelerator.init_trackers(PROJECT, config=settings, init_kwargs=words)
        except Exception as error:
            raise RunError(
                f"A tracker ({', '.join(self.names)}) could not start: {first_line(error).rstrip('.')}. Log in to it, "
                "run it offline (for wandb: WANDB_MODE=offline), or leave --track out."
            ) from error

    def dipp_on_step(self, event: StepEvent) -> None:
        self.accelerator.log({name: value for name, value in event.metrics.items() if name != "step"}, step=event.step)

    def dipp_on_run_end(self, event: RunEndEvent) -> None:
        self.accelerator.end_training()
