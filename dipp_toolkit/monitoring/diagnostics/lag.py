r"""The assistant's lag: how much worse it knows the generator as it is than as it was one update ago.

With $\ell(x_0)$ the assistant's denoising loss, the same prompts, generator noises, times and forward noises before and
after one generator update, and the assistant held fixed,

$$\mathrm{lag} = \frac{\sum \ell(g_{\theta_{k+1}}(z))}{\sum \ell(g_{\theta_k}(z))} - 1.$$

It is 0 for a generator that stood still. Below 0 the fresh samples are easier than the old, which a healthy generator's
are by a little at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from ...events import Warned
from ...utils.messages import number_text
from ..diagnostic import Diagnostic, Observation, Row, how_often, left, numbers

NAME = "assistant-lag"

MOST = 0.3
"""Either way. In 250 updates of the emoji world's recommended run it is 0.1 and once 0.25; with `reward_scale=1e5` and
`learning_rate=0.02` -0.60."""


def lag(loss: Float[Tensor, " rows"], earlier_loss: Float[Tensor, " rows"]) -> float:
    """The lag, from each sample's loss after and before an update."""
    return (loss.double().sum() / earlier_loss.double().sum()).item() - 1


def healthy(value: float) -> bool:
    """Whether a lag is in its range."""
    return abs(value) <= MOST


def measure(observation: Observation) -> Mapping[str, float]:
    """`lag`, where samples of one update ago were seen."""
    denoised = observation.denoised
    if denoised is None or denoised.earlier_loss is None:
        return {}
    return {"lag": lag(denoised.loss, denoised.earlier_loss)}


def warn(rows: Sequence[Row]) -> Warned | None:
    """The warning, or None."""
    values = [value for _, value in numbers(rows, "lag")]
    if not left(values, healthy):
        return None
    worst = max(values, key=abs)
    return Warned(
        name=NAME,
        text=f"One generator update changed the assistant's loss by more than {100 * MOST:g} % "
        f"{how_often(values, healthy)} (by {number_text(100 * worst, '+.0f')} % at most): the generator moves faster "
        "than the assistant can follow. Lower learning_rate, or raise assistant_rounds.",
    )


DIAGNOSTICS = (
    Diagnostic(
        name=NAME,
        title="The assistant's lag",
        reading=(
            "How much higher the assistant's loss is on fresh samples of the generator than on samples of the same "
            "prompts and noises one update older: 0 where the update changed nothing, 0.1 where it made the assistant "
            "10 % worse."
        ),
        healthy=(
            f"Within {MOST:g} of 0, on either side. Beyond, one update moves the generator out of what the assistant "
            "knows, and the divergence's gradient points to where the generator was."
        ),
        paths={"lag": ("lag",)},
        measure=measure,
        warn=warn,
        include=(0.0,),
    ),
)
