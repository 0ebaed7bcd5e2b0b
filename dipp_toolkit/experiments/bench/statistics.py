r"""Figures of a row: numbers with 95 % intervals over prompts.

A figure that is a mean over prompts has the interval of `dipp_toolkit.evaluation.intervals`. A number of the whole set,
such as a Frechet distance, has the interval $\hat\theta \pm t_{n-1}\,\mathrm{se}$ over n prompts, with the standard
error of drawing prompts with replacement (Efron and Tibshirani 1993, chapters 6 and 12): repeated prompts bias such
numbers, which would shift a percentile interval off the number itself, but their spread is still that of drawing
prompts. Draws are counts, how often each has each prompt. A metric that knows what to do with counts, or a formula that
needs none, is asked for its errors (`ErrorsOfSets`); any other is computed again on each draw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import RunError
from ...evaluation.intervals import mean_interval, student_quantile
from ...protocols import ErrorsOfSets, Metric
from .rows import Figure

RESAMPLES = 200
"""Bootstrap samples of a number of the whole set."""
DIGITS = 6
"""Significant digits of the values a row keeps for each prompt."""


def rounded(values: Tensor) -> tuple[float, ...]:
    """Numbers as a row keeps them."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values.double().tolist())


def mean_figure(values: Float[Tensor, "prompts *seeds"], categories: Sequence[str], role: str, better: str) -> Figure:
    """A mean over prompts.

    Args:
        values: one a prompt, `(P,)`, or one a prompt and noise, `(P, S)`, averaged over S first.
        categories: of each prompt; empty texts belong to none.
        role: `reward`, `judge` or `metric`.
        better: `higher`, `lower` or empty.
    """
    # The interval is that of the rounded values, so that whoever reads the row alone finds the same one.
    kept = rounded(values.double().reshape(len(values), -1).mean(1))
    per_prompt = torch.tensor(kept, dtype=torch.float64)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, category in enumerate(categories):
        if category:
            groups[category].append(index)
    by_category = {}
    if len(groups) > 1:
        for name, rows in groups.items():
            interval = mean_interval(per_prompt[rows])
            by_category[name] = (interval.mean, interval.low, interval.high)
    whole = mean_interval(per_prompt)
    return Figure(
        mean=whole.mean,
        low=whole.low,
        high=whole.high,
        role=role,  # type: ignore[arg-type]
        better=better,  # type: ignore[arg-type]
        per_prompt=kept,
        by_category=by_category,
    )


def metric_figures(
    name: str,
    metric: Metric,
    features: Float[Tensor, "prompts seeds dimensions"],
    categories: Sequence[str],
    seed: int = 0,
) -> dict[str, Figure]:
    """All figures of a metric.

    Raises:
        RunError: it returns something else than a finite number, or one a prompt.
    """
    figures: dict[str, Figure] = {}
    sets: dict[str, float] = {}
    for figure, value in metric.values(features).items():
        as_tensor = torch.as_tensor(value).detach().double()
        if not torch.isfinite(as_tensor).all() or as_tensor.shape not in ((), (len(features),)):
            raise RunError(
                f"The metric '{name}' gave {value} for '{figure}'; expected a finite number, or one for each of the "
                f"{len(features)} prompts."
            )
        if as_tensor.ndim:
            figures[figure] = mean_figure(as_tensor, categories, "metric", metric.better.get(figure, ""))
        else:
            sets[figure] = as_tensor.item()
    if sets:
        errors = _standard_errors(metric, features, list(sets), seed)
        quantile = student_quantile(0.95, max(2, len(features)))
        for figure, number in sets.items():
            reach = quantile * errors[figure]
            figures[figure] = Figure(
                mean=number,
                low=number - reach,
                high=number + reach,
                role="metric",
                better=metric.better.get(figure, ""),  # type: ignore[arg-type]
            )
    return figures


def _standard_errors(metric: Metric, features: Tensor, names: Sequence[str], seed: int) -> dict[str, float]:
    random = torch.Generator().manual_seed(seed)
    count = len(features)
    draws = [torch.randint(count, (count,), generator=random) for _ in range(RESAMPLES)]
    if isinstance(metric, ErrorsOfSets):
        counts = torch.stack([draw.bincount(minlength=count) for draw in draws]).double()
        errors = metric.standard_errors(features, counts)
        return {name: float(errors[name]) for name in names}
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for draw in draws:
        values = metric.values(features[draw])
        for name in names:
            drawn[name].append(float(values[name]))
    return {name: torch.tensor(values, dtype=torch.float64).std().item() for name, values in drawn.items()}


def cost_figures(costs: Mapping[str, Sequence[float]], better: Mapping[str, str]) -> dict[str, Figure]:
    """Figures of measurements: means with the interval of repeated ones; none for what is exact."""
    figures = {}
    for name, values in costs.items():
        repeated = len(values) > 1
        interval = mean_interval(torch.tensor(list(values), dtype=torch.float64))
        figures[name] = Figure(
            mean=interval.mean,
            low=interval.low if repeated else None,
            high=interval.high if repeated else None,
            role="cost",
            better=better.get(name, ""),  # type: ignore[arg-type]
        )
    return figures
