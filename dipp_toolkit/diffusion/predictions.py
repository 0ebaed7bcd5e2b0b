r"""What networks predict, and the way from each to the denoised sample and the score.

All of it follows from $x_t = \alpha x_0 + \sigma \epsilon$. The toolkit works in
$\hat x_0 = E[x_0 | x_t]$, the stable one; networks speak

- `epsilon`: $\epsilon$ (Ho et al. 2020),
- `v_prediction`: $v = \alpha \epsilon - \sigma x_0$ (Salimans & Ho 2022),
- `sample`: $x_0$,
- `velocity`: $u = \epsilon - x_0$, the flow-matching velocity (Lipman et al. 2023, with noise at t = 1).

The first three carry diffusers' names of `prediction_type`. TrigFlow's velocity (Lu & Song 2025), which diffusers calls
`trigflow`, is $v$ on its circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from ..errors import RequestError

Prediction = Literal["epsilon", "v_prediction", "sample", "velocity"]


def prediction_from_config(config: Mapping[str, Any]) -> Prediction:
    """What a network trained with this diffusers scheduler configuration predicts.

    Raises:
        RequestError: the configuration's `prediction_type` is not one of ours.
    """
    if "FlowMatch" in str(config.get("_class_name", "")) or config.get("prediction_type") == "flow_prediction":
        return "velocity"
    kind = config.get("prediction_type", "epsilon")
    if kind == "trigflow":
        return "v_prediction"
    if kind not in get_args(Prediction):
        raise RequestError(f"The scheduler's prediction_type is '{kind}'; known are {', '.join(get_args(Prediction))}.")
    return kind


def to_x0(kind: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r"""The denoised sample $\hat x_0$ that a network's output means.

    Args:
        kind: what the network predicts.
        output: its prediction, like `x_t`.
        x_t: the noised sample.
        alpha: signal coefficient, broadcastable to `x_t`; non-zero for `epsilon`.
        sigma: noise coefficient, broadcastable to `x_t`.

    Returns:
        $\hat x_0$, like `x_t`.
    """
    match kind:
        case "sample":
            return output
        case "epsilon":
            return (x_t - sigma * output) / alpha
        case "v_prediction":
            return (alpha * x_t - sigma * output) / (alpha.square() + sigma.square())
        case "velocity":
            return (x_t - sigma * output) / (alpha + sigma)


def from_x0(kind: Prediction, x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of `to_x0`: the output a network of this kind gives where the denoised sample is `x0`.

    `sigma` is non-zero for every kind but `sample`.
    """
    noise = (x_t - alpha * x0) / sigma if kind != "sample" else x0
    match kind:
        case "sample":
            return x0
        case "epsilon":
            return noise
        case "v_prediction":
            return alpha * noise - sigma * x0
        case "velocity":
            return noise - x0


def score_from_x0(x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r"""$\nabla \log p_t(x_t) = (\alpha \hat x_0 - x_t) / \sigma^2$ (Tweedie)."""
    return (alpha * x0 - x_t) / sigma.square()


def x0_from_score(score: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    r"""$\hat x_0 = (x_t + \sigma^2 \nabla \log p_t(x_t)) / \alpha$, the inverse of `score_from_x0`."""
    return (x_t + sigma.square() * score) / alpha
