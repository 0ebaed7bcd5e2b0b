"""`latency`: seconds an image, one at a time and in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import ImageSource

from .calls import call_with, wait_for

LEAST_REPEATS = 3


class Latency:
    """Wall-clock seconds from prompts to pixels on the CPU, over the number of images: encoding, network and decoder.

    Each size is warmed up, then timed again and again; the device is waited for before and after. Prompts that the
    source has encoded before are not encoded again.

    Args:
        batch: images of the larger size.
        repeats: timings of each size.
        warmup: untimed calls of each size before.
        seconds: a size ends early after so long, but not before three timings.

    Raises:
        RequestError: an option is out of range.
    """

    def __init__(self, batch: int = 8, repeats: int = 10, warmup: int = 2, seconds: float = 60.0):
        if batch < 2 or repeats < 1 or warmup < 0 or seconds < 0:
            raise RequestError(
                "The metric 'latency' takes a batch from 2, repeats from 1, warmup and seconds from 0; got "
                f"batch={batch}, repeats={repeats}, warmup={warmup}, seconds={seconds}."
            )
        self.batch, self.repeats, self.warmup, self.seconds = batch, repeats, warmup, seconds

    @property
    def better(self) -> Mapping[str, str]:
        return {"latency": "lower", f"latency-batch-{self.batch}": "lower"}

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> dict[str, list[float]]:
        """`latency` and `latency-batch-N`: seconds an image, one for each timing; take the median.

        Raises:
            RequestError: there is no prompt.
        """
        return {
            "latency": self._timed(source, prompts, 1),
            f"latency-batch-{self.batch}": self._timed(source, prompts, self.batch),
        }

    def _timed(self, source: ImageSource, prompts: Sequence[str], count: int) -> list[float]:
        for call in range(self.warmup):
            call_with(source, prompts, count, call)
        begun, timings = perf_counter(), list[float]()
        for call in range(self.repeats):
            wait_for(source.device)
            started = perf_counter()
            call_with(source, prompts, count, call)
            wait_for(source.device)
            timings.append((perf_counter() - started) / count)
            if len(timings) >= LEAST_REPEATS and perf_counter() - begun > self.seconds:
                break
        return timings
