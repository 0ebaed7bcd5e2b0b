"""Which times the assistant learns: its own law, or uniformly those that the divergence looks at."""

from __future__ import annotations

from ...config import TrainConfig
from ...diffusion.times import Sampling, find_sampling
from ...errors import RequestError


def assistant_times(config: TrainConfig) -> Sampling:
    """How the assistant's times are drawn.

    Raises:
        RequestError: there is no such time sampling; the message names the nearest.
    """
    low, high = config.assistant_time_range or config.time_range
    return find_sampling(config.assistant_time_sampling, low, high)


def check_assistant_times(config: TrainConfig) -> None:
    """Refuse an assistant that never learns times at which it will be asked.

    Raises:
        RequestError: its range leaves out times of the divergence's, or its time sampling does not exist.
    """
    assistant_times(config)
    if config.assistant_time_range is None:
        return
    (low, high), (first, last) = config.assistant_time_range, config.time_range
    if low > first or high < last:
        raise RequestError(
            f"assistant_time_range={low:g},{high:g} leaves out times between {first:g} and {last:g}, which the "
            "divergence looks at, and where the assistant would not have learnt anything. Say, for example: "
            f"--set assistant_time_range={min(low, first):g},{max(high, last):g}"
        )
