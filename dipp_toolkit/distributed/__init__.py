"""Several processes, one run: what they tell each other, how they draw, average and shard."""

from .group import Processes, launched_count

__all__ = ["Processes", "launched_count"]
