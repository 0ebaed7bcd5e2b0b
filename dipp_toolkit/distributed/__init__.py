"""Several processes, one run: the messages they exchange, and how they draw, average and shard."""

from .group import Processes, launched_count

__all__ = ["Processes", "launched_count"]
