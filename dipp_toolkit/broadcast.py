"""A run's events, to everybody who wants to hear of them."""

from __future__ import annotations

from collections.abc import Sequence

from .registry import get_registry


class Broadcast:
    """Passes a run's events to the plugins' hooks and to the listeners of this run."""

    def __init__(self, listeners: Sequence[object]):
        self.hook, self.listeners = get_registry().manager.hook, listeners

    def __call__(self, name: str, event: object) -> None:
        getattr(self.hook, name)(event=event)
        for listener in self.listeners:
            method = getattr(listener, name, None)
            if method is not None:
                method(event)
