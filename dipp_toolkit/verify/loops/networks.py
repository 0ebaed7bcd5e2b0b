"""The networks that a loop is given: torch modules that answer in a prediction type, and are seen by a recorder.

Each is called as `network(x_t, timestep, condition)`: `x_t` is `(batch, 3, 1, 1)`, `timestep` a number or `(batch,)` in
the network's own units (0 to 999, or 1000 sigma in flow matching), `condition` is `(batch, 1)`, 1 with a prompt and 0
without. All arithmetic is float64 inside; the output has the dtype of `x_t`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...diffusion.predictions import Prediction, from_x0
from ...errors import RunError
from ...objective.gaussians import Gaussian
from .levels import Levels
from .recording import Call, Recorder, Role

BINS = 4
"""Parts of the range of times in which the fake score has weights of its own."""


class Seen(nn.Module):
    """What all of them share: reading the arguments, and telling the recorder.

    Attributes:
        role: of the network.
        levels: noise levels by timestep.
        prediction: what its output is.
        recorder: is told of every call.
    """

    role: Role = ""

    def __init__(self, levels: Levels, prediction: Prediction, recorder: Recorder) -> None:
        super().__init__()
        self.levels, self.prediction, self.recorder = levels, prediction, recorder

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, timestep: Tensor, given: Tensor) -> Tensor:
        """The denoised samples, `(batch, dimension)`."""
        raise NotImplementedError

    def steps_of(self, timestep: Tensor) -> Tensor:
        """Number of the generator's step at each time; 0 for networks that have no steps."""
        return torch.zeros(len(timestep), dtype=torch.long)

    def forward(self, x_t: Tensor, timestep: Tensor | float, condition: Tensor) -> Tensor:
        rows = x_t.flatten(1).double()
        if rows.shape[1] != 3:
            raise RunError(
                f"The {self.role} was given x_t of shape {tuple(x_t.shape)}; in this world it is (batch, 3, 1, 1)."
            )
        times = torch.as_tensor(timestep, dtype=torch.float64).flatten().expand(len(rows))
        given = torch.as_tensor(condition, dtype=torch.float64).reshape(-1).expand(len(rows))
        alpha, sigma = self.levels(times)
        x0 = self.denoised(rows, alpha, sigma, times, given)
        call = Call(
            self.role, rows.detach(), times, alpha, sigma, given > 0.5, x0.detach(), self.steps_of(times),
            x_t.requires_grad,
        )  # fmt: skip
        if x0.requires_grad:
            x0.register_hook(call.receive)
        self.recorder.add(call)
        output = from_x0(self.prediction, x0, rows, alpha[:, None], sigma[:, None])
        return output.reshape(x_t.shape).to(x_t.dtype)


class Exact:
    """The exact denoiser of two Gaussians of one covariance, with a prompt and without.

    Attributes:
        given: the law with a prompt.
        empty: the law without.
    """

    def __init__(self, given: Gaussian, empty: Gaussian) -> None:
        self.given, self.empty = given, empty
        self.values, self.vectors = torch.linalg.eigh(given.covariance)

    def __call__(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, given: Tensor) -> Float[Tensor, "batch dimension"]:
        mean = self.empty.mean + given[:, None] * (self.given.mean - self.empty.mean)
        alpha, sigma = alpha[:, None], sigma[:, None]
        shrink = alpha * self.values / (alpha.square() * self.values + sigma.square())
        return mean + ((x_t - alpha * mean) @ self.vectors * shrink) @ self.vectors.mT

    def standard(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Float[Tensor, "batch dimension"]:
        """What is standard normal where $x_t$ is a noised sample of the law with a prompt."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        spread = (alpha.square() * self.values + sigma.square()).sqrt()
        return (x_t - alpha * self.given.mean) @ self.vectors / spread


class ReferenceNetwork(Seen):
    """The frozen reference, exact at every time."""

    role = "reference"

    def __init__(self, exact: Exact, levels: Levels, prediction: Prediction, recorder: Recorder) -> None:
        super().__init__(levels, prediction, recorder)
        self.exact = exact
        # A loop may ask any network for its device or dtype through its parameters.
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, timestep: Tensor, given: Tensor) -> Tensor:
        return self.exact(x_t, alpha, sigma, given)


class FakeScoreNetwork(Seen):
    r"""The score of the generator's samples, exact at its initial parameters 0, with every affine map within reach.

    $\hat x_0 = E[x_0 | x_t] + W_j u + v_j$, u being $x_t$ standardised by its law and j the part of the range of times.

    Attributes:
        weight: W, `(parts, 3, 3)`.
        bias: v, `(parts, 3)`.
    """

    role = "fake_score"

    def __init__(self, levels: Levels, prediction: Prediction, recorder: Recorder) -> None:
        super().__init__(levels, prediction, recorder)
        self.exact: Exact | None = None
        self.offset = torch.zeros(3, dtype=torch.float64)
        self.weight = nn.Parameter(torch.zeros(BINS, 3, 3))
        self.bias = nn.Parameter(torch.zeros(BINS, 3))

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, timestep: Tensor, given: Tensor) -> Tensor:
        assert self.exact is not None
        part = self.levels.part(timestep, BINS)
        unit = self.exact.standard(x_t, alpha, sigma)
        moved = torch.einsum("bij,bj->bi", self.weight.double()[part], unit) + self.bias.double()[part]
        return self.exact(x_t, alpha, sigma, given) + moved + self.offset


class GeneratorNetwork(Seen):
    r"""An affine generator of K steps: $\hat x_0 = A_k x_t + b_k$ at the k-th of its times, the nearest to any other.

    Attributes:
        matrix: A, `(steps, 3, 3)`.
        bias: b, `(steps, 3)`.
        timesteps: of its steps.
    """

    role = "generator"

    def __init__(
        self, timesteps: Float[Tensor, " steps"], levels: Levels, prediction: Prediction, recorder: Recorder
    ) -> None:
        super().__init__(levels, prediction, recorder)
        self.timesteps = timesteps
        self.matrix = nn.Parameter(torch.eye(3).repeat(len(timesteps), 1, 1))
        self.bias = nn.Parameter(torch.zeros(len(timesteps), 3))

    def steps_of(self, timestep: Tensor) -> Tensor:
        return (timestep[:, None] - self.timesteps).abs().argmin(1)

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, timestep: Tensor, given: Tensor) -> Tensor:
        step = self.steps_of(timestep)
        return torch.einsum("bij,bj->bi", self.matrix.double()[step], x_t) + self.bias.double()[step]
