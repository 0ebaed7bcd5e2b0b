"""Which curves a report shows, and how each is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..events import MOST
from ..objective.result import metric_name, pair_with, reward_term, terms_with
from ..utils.messages import number_text
from .charts.lines import Series, colour_class, line_chart
from .run_files import RunFiles

LOG_RATIO = 20
"""Positive lines that differ by more than this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Curve:
    """One chart with its legend (name and colour class) and the sentences under it."""

    title: str
    chart: Markup
    legend: Sequence[tuple[str, str]]
    reading: str
    healthy: str


def series_of(run: RunFiles, key: str, name: str | None = None) -> Series | None:
    """The line of one metric, over the steps that have it; None where none has."""
    rows = [row for row in run.metrics if key in row]
    return Series(name or key, [row["step"] for row in rows], [row[key] for row in rows]) if rows else None


def _term_name(run: RunFiles, term: str) -> str:
    return run.spelling.name(term.removeprefix(reward_term("")))


def _terms_with(run: RunFiles, quantity: str) -> list[str]:
    return terms_with((name for row in run.metrics for name in row), quantity)


def _term_series(run: RunFiles, quantity: str) -> list[Series | None]:
    """The line of each term's quantity."""
    terms = _terms_with(run, quantity)
    return [series_of(run, metric_name(quantity, term), _term_name(run, term)) for term in terms]


def _pair_series(run: RunFiles, quantity: str, terms: Sequence[str]) -> list[Series | None]:
    """The line of each two terms' quantity, such as "integral_kl and emoji-clip"."""
    lines = []
    for pair in _terms_with(run, quantity):
        both = pair_with(pair, terms)
        name = pair if both is None else " and ".join(_term_name(run, term) for term in both)
        lines.append(series_of(run, metric_name(quantity, pair), name))
    return lines


def curve(
    title: str,
    series: Sequence[Series | None],
    reading: str,
    healthy: str,
    *,
    include: Sequence[float] = (),
    log: bool = False,
    axis: str = "step",
) -> Curve | None:
    """A chart of the lines that exist; None without any."""
    lines = [line for line in series if line is not None]
    if not lines:
        return None
    if log:
        values = [value for line in lines for value in line.values]
        log = min(values) > 0 and max(values) / min(values) > LOG_RATIO
        reading += " The axis is logarithmic." if log else ""
    ends = "; ".join(
        f"{line.name} from {number_text(line.values[0], '.4g')} to {number_text(line.values[-1], '.4g')}"
        for line in lines
    )
    chart = line_chart(lines, f"{title} over {len(lines[0].steps)} {axis}s: {ends}", include, log, axis)
    legend = [(line.name, colour_class(index)) for index, line in enumerate(lines)] if len(lines) > 1 else []
    return Curve(title, chart, legend, reading, healthy)


def _reward_curves(run: RunFiles) -> list[Curve | None]:
    curves = []
    floors = run.config.floors
    for name in dict.fromkeys([*run.config.rewards, *floors]):
        weight = run.config.rewards.get(name, 0.0)
        healthy = (
            "Stays above its floor, the level the axis reaches down to."
            if name in floors
            else "Rises quickly, then flattens. If it climbs on while judge and pictures get worse, it is being hacked."
            if weight >= 0
            else "Its weight is negative, so it should fall, then flatten."
        )
        curves.append(
            curve(
                f"Reward: {run.spelling.name(name)}",
                [series_of(run, reward_term(name), run.spelling.name(name))],
                "Mean score of each training batch, before its weight.",
                healthy,
                include=(floors[name],) if name in floors else (),
            )
        )
    return curves


def budget_lines(run: RunFiles) -> list[Series | None]:
    """The running KL and the level that it is held at, where a run has a budget."""
    budget, running = run.config.kl_budget, series_of(run, "kl_running", "running mean")
    if budget is None or running is None:
        return []
    ends = [running.steps[0], running.steps[-1]]
    return [running, Series("budget", ends, [budget, budget])]


def curves_of(run: RunFiles) -> list[Curve]:
    """Rewards, divergence, gradient sizes, agreement of the terms, the assistant's loss, as far as they were logged."""
    terms = _terms_with(run, "grad_norm")
    divergence = (
        "Rises while the rewards pull the generator away from the reference, then levels off. A climb that does not "
        "end means the rewards outweigh it: lower reward_scale."
        if run.config.rewards
        else "Falls towards 0, and then only fluctuates."
    )
    loss = series_of(run, "assistant_loss", "assistant loss")
    curves = [
        *_reward_curves(run),
        curve(
            "Divergence",
            [series_of(run, "divergence", "divergence")],
            "How far the generator's images are from the reference's law, as the assistant sees it; an estimate on "
            "each batch, so single values may be negative.",
            divergence,
            include=(0.0,),
        ),
        curve(
            "Divergence in nats",
            [*_term_series(run, "kl"), *budget_lines(run)],
            "Integral KL between generator and reference (under the run's guidance), as assistant and reference see "
            "them: the mean over the times that are looked at, in nats for each dimension of a sample. An estimate on "
            "each batch, whatever the weighting of the gradient.",
            divergence,
            include=(0.0,),
        ),
        curve(
            "Factors of the rewards' scale",
            [series_of(run, "scale_factor", "scale_schedule"), series_of(run, "kl_factor", "kl_budget")],
            "What the schedule and the KL budget multiply the rewards' scale by.",
            "The budget's levels off: that is the scale at which the KL stays. At 1/1000 or 1000 it cannot be held.",
            include=(1.0,),
            log=True,
        ),
        curve(
            "Gradient size of each term",
            _term_series(run, "grad_norm"),
            "Root mean square of each weighted term's gradient on the generated sample: how hard each one pulls.",
            "All within a factor of ten or so. A term a hundred times above the others decides alone.",
            include=(0.0,) if len(terms) == 1 else (),
            log=True,
        ),
        curve(
            "Pull of the rewards",
            [series_of(run, "pull", "pull")],
            "Size of the rewards' joint gradient on the generated samples over the divergence's: above 1 the rewards "
            "pull harder.",
            f"Between 0.1 and 10. Beyond 1/{MOST:g} or {MOST:g} one of the two decides alone.",
            log=True,
        ),
        curve(
            "Multipliers of the floors",
            _term_series(run, "multiplier"),
            "How hard each floor pushes its reward up, over and above its weight.",
            "0 while the reward is above its floor. One that grows without end means that the floor cannot be held "
            "against the other terms: lower it, or lower reward_scale.",
            include=(0.0,),
        ),
        curve(
            "Surrogates of the black boxes",
            _term_series(run, "rank_correlation"),
            "Rank correlation between predicted and true differences of scores within a prompt, of samples that the "
            "surrogate has not seen.",
            f"Above {run.config.black_box_trust:g}, where its gradient is used. Below, the reward rests.",
            include=(0.0, run.config.black_box_trust),
        ),
        curve(
            "Rewards learned on latents",
            _term_series(run, "latent_cosine"),
            "Cosine between the gradient that stands in for a reward and the true one, on samples that were not "
            "learned from.",
            f"Above {run.config.latent_cosine:g}, where it is used. Below, the true reward scores every sample.",
            include=(0.0, run.config.latent_cosine),
        ),
        curve(
            "Agreement between terms",
            _pair_series(run, "cosine", terms),
            "Cosine between two terms' gradients: 1 pull the same way, 0 have nothing to do with each other, "
            "\N{MINUS SIGN}1 pull against each other.",
            "Near 0, drifting below it where a reward and the divergence come to a balance. Two rewards far below 0 "
            "want different images.",
            include=(0.0,),
        ),
        curve(
            "Assistant's loss",
            [loss],
            "Denoising error of the assistant, the network that follows the generator and tells the divergence where "
            "it is.",
            "Flat or slowly falling. A steady rise means the generator moves faster than the assistant can follow: "
            "lower learning_rate, or raise assistant_rounds.",
        ),
    ]
    return [chart for chart in curves if chart is not None]
