"""A run's events, to everybody who wants to hear of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..registry import get_registry


class Broadcast:
    """Passes a run's events to the plugins' hooks and to the listeners of this run.

    Args:
        listeners: of this run.
        speaks: whether this process is the one of the run that tells.
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
