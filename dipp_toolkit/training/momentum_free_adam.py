r"""Adam without a first moment.

With $\beta_1 = 0$ Adam's running mean of the gradients is the gradient itself,

$$m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t = g_t, \qquad
  v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad
  \theta_t = \theta_{t-1} - \eta\, g_t \big/ \left(\sqrt{v_t / (1 - \beta_2^t)} + \epsilon\right),$$

so keeping $m$ costs as much memory as the weights and holds nothing that the gradient does not say. `torch.optim.Adam`
allocates it all the same. `torch.optim.RMSprop` does not, but it has no bias correction and no fused kernel: its rate
and epsilon would have to be scaled by $\sqrt{1 - \beta_2^t}$ at every step, which rounds differently. The class is ours
because torch has no such optimiser; the arithmetic is torch's own, by its functional Adam, with the gradients given as
the first moments that they are. Weights are those of `torch.optim.Adam(betas=(0, beta2))` to the bit, by the fused, the
foreach and the plain kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class MomentumFreeAdam(torch.optim.Optimizer):
    r"""`torch.optim.Adam` with $\beta_1 = 0$, keeping a step count and $v$ for each parameter: half of Adam's state.

    Gradients are the same after a step as before it.

    Args:
        parameters: what is trained.
        lr: the learning rate.
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to its root.
        fused: one kernel for all parameters; None for torch's own choice between its other two.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        beta2: float = 0.999,
        eps: float = 1e-8,
        fused: bool | None = None,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.0, beta2), "eps": eps, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the parameters that have a gradient; returns what `closure` returned, which computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in moved]
            states = [self._state_of(parameter, group["fused"]) for parameter in moved]
            adam(
                moved, gradients, gradients, [state["exp_avg_sq"] for state in states], [],
                [state["step"] for state in states], fused=group["fused"], amsgrad=False, beta1=0.0,
                beta2=group["betas"][1], lr=group["lr"], weight_decay=0.0, eps=group["eps"], maximize=False,
            )  # fmt: skip
        return loss

    def _state_of(self, parameter: Tensor, fused: bool | None) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            # Only the fused kernels count on the parameter's own device: elsewhere the host would have to wait for it.
            device = parameter.device if fused else torch.device("cpu")
            state["step"] = torch.zeros((), device=device, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def own_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What this optimiser keeps of a saved state: one of `torch.optim.Adam`'s has first moments and more options.

        Args:
            state: what either's `state_dict` gave.
        """
        options = {"params", *self.defaults}
        moments = {
            index: {name: value for name, value in own.items() if name in ("step", "exp_avg_sq")}
            for index, own in state["state"].items()
        }
        groups = [{name: value for name, value in group.items() if name in options} for group in state["param_groups"]]
        return {"state": moments, "param_groups": groups}
