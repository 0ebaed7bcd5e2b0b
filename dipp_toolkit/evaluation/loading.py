"""From names to metrics: what scripts and the command line use alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import RequestError
from ..protocols import CostMetric, Metric
from ..registry import get_registry
from ..utils.exception_text import loading
from ..utils.imports import find_in_python, is_python_name


def load_metric(name: str, **options: Any) -> Metric | CostMetric:
    """A metric by registered name, `file.py:Name` or `module:Name`: of images, or of what making them costs.

    A class, or a function that makes the metric, is called with `options`; anything else is the metric itself.

    Raises:
        RequestError: the name is unknown, the file cannot be used, an option is not one of the metric's, or the
            object is not a metric.
    """
    with loading("metric", name):
        return find_metric(name, **options)()


def find_metric(name: str, **options: Any) -> Callable[[], Metric | CostMetric]:
    """What makes a metric, once all is checked that does not need its weights or images; see `load_metric`.

    Raises:
        RequestError: the name is unknown, the file cannot be used, a package is not installed, or an option is none of
            the metric's.
    """
    with loading("metric", name):
        if not is_python_name(name):
            return partial(get_registry().find("metric", name).find_factory(options), **options)
        make = find_in_python(name, "metric", options)
        return lambda: _metric_of(name, make())


def _metric_of(name: str, metric: Any) -> Metric | CostMetric:
    if isinstance(metric, Metric | CostMetric):
        return metric
    raise RequestError(
        f"The metric '{name}' is a {type(metric).__name__} without what a metric has: `better` with either `features` "
        "and `values`, or `costs`."
    )
