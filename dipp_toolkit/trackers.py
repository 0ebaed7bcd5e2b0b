"""Experiment trackers through accelerate: tensorboard, wandb, trackio."""

from __future__ import annotations

import json

from .events import RunEndEvent, RunStartEvent, StepEvent
from .packages import missing_of, not_installed


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
        self.accelerator.init_trackers("dipp", config=settings)

    def dipp_on_step(self, event: StepEvent) -> None:
        self.accelerator.log({name: value for name, value in event.metrics.items() if name != "step"}, step=event.step)

    def dipp_on_run_end(self, event: RunEndEvent) -> None:
        self.accelerator.end_training()
