"""Several processes, one run: what they tell each other, how they draw, average and shard."""

from .group import Processes

__all__ = ["Processes"]
