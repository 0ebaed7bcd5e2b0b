"""The Gaussian world: a reference and a generator that fill the toolkit's roles and whose optima are known.

A latent is an image of one pixel, `(3, 1, 1)`, or of another `shape`, so that rewards see the shape they always see.
All of it is public: a file of somebody's own makes such a world, and `dipp train` takes it by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..diffusion.denoiser import Denoiser
from ..diffusion.predictions import Prediction
from ..diffusion.schedules import Schedule
from ..errors import RequestError
from ..objective.gaussians import Gaussian
from ..protocols import Generator, Latents, Reference
from ..utils.images import Images
from .gaussian_network import gaussian_denoiser
from .network import GIVEN, closed_form_denoiser

WEIGHTS = "affine.safetensors"
"""The file of a saved generator."""


@dataclass
class GaussianReference:
    """A reference whose law is Gaussian: `empty` without a prompt, `given` with any prompt, of equal covariances.

    Attributes:
        empty: the law of the empty prompt.
        given: the law of every other prompt.
        schedule: the forward process.
        times: the times in [0, 1] at which it can be asked, a network with weights of its own for each; where None, at
            every time, by one `GaussianNetwork`.
        prediction: what its network predicts.
        shape: of a latent, as many numbers as the laws have; `(dimension, 1, 1)` unless given.
        denoiser: its closed form, frozen; a trainable copy can represent every affine generator's.
    """

    empty: Gaussian
    given: Gaussian
    schedule: Schedule
    times: Float[Tensor, " times"] | None = None
    prediction: Prediction = "v_prediction"
    shape: tuple[int, ...] = ()
    denoiser: Denoiser = field(init=False)

    def __post_init__(self) -> None:
        laws = self.empty, self.given, self.schedule, self.prediction
        made = gaussian_denoiser(*laws) if self.times is None else closed_form_denoiser(*laws, self.times)
        self.denoiser = made.frozen()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.shape or (len(self.empty.mean), 1, 1)

    def guided(self, guidance: float) -> Gaussian:
        r"""The law under guidance, $N(\mu_0 + a (\mu_c - \mu_0), \Sigma)$.

        At equal covariances $q_t(x|\varnothing)^{1-a} q_t(x|c)^a$ is its noised density at every time, up to a factor.
        """
        return Gaussian(self.empty.mean + guidance * (self.given.mean - self.empty.mean), self.empty.covariance)

    def encode(self, prompts: Sequence[str]) -> Condition:
        given = torch.tensor([[float(prompt != "")] for prompt in prompts], dtype=self.empty.mean.dtype)
        return Condition(tuple(prompts), {GIVEN: given.to(self.empty.mean.device)})

    def null(self, batch: int) -> Condition:
        return self.encode([""] * batch)

    def decode(self, latents: Latents) -> Images:
        """The latents themselves: no colours, and not confined to [0, 1], which would spoil the closed form."""
        return latents

    def sample(self, condition: Condition, noise: Latents, steps: int, guidance: float) -> Latents:
        """Exact samples, $m + L z$ with $L L^T = \\Sigma$; `steps` changes nothing, there is nothing to integrate."""
        mean = self.empty.mean + guidance * condition.tensors[GIVEN] * (self.given.mean - self.empty.mean)
        spread = noise.flatten(1).to(mean.dtype) @ torch.linalg.cholesky(self.empty.covariance).mT
        return (mean + spread).reshape(noise.shape)

    def to(self, device: torch.device | str) -> GaussianReference:
        self.denoiser.network.to(device)
        self.empty = Gaussian(self.empty.mean.to(device), self.empty.covariance.to(device))
        self.given = Gaussian(self.given.mean.to(device), self.given.covariance.to(device))
        return self


class AffineMap(nn.Module):
    """$A z + b$.

    Attributes:
        matrix: A.
        bias: b.
    """

    def __init__(self, matrix: Float[Tensor, "dimension dimension"], bias: Float[Tensor, " dimension"]) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(matrix), nn.Parameter(bias)

    def forward(self, noise: Float[Tensor, "batch dimension"]) -> Float[Tensor, "batch dimension"]:
        return noise @ self.matrix.mT + self.bias


@dataclass
class AffineGenerator:
    """The generator $g(z) = A z + b$, whose law is $N(b, A A^T)$. It is trained for one prompt and does not look at it.

    Attributes:
        network: holds A and b.
        shape: of a latent, as many numbers as b has; `(dimension, 1, 1)` unless given.
    """

    network: AffineMap
    shape: tuple[int, ...] = ()

    @classmethod
    def standard(cls, scale: float, shape: tuple[int, ...]) -> AffineGenerator:
        r"""The generator $g(z) = s z$, float64.

        Args:
            scale: s.
            shape: of a latent.
        """
        size = math.prod(shape)
        eye, zero = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        return cls(AffineMap(scale * eye, zero), shape)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.shape or (len(self.network.bias), 1, 1)

    @property
    def law(self) -> Gaussian:
        """$N(b, A A^T)$ for the parameters as they are now, cut off from the graph."""
        matrix, bias = self.network.matrix.detach(), self.network.bias.detach()
        return Gaussian(bias, matrix @ matrix.mT)

    def generate(self, noise: Latents, condition: Condition) -> Latents:
        return self.network(noise.flatten(1).to(self.network.bias.dtype)).reshape(noise.shape)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        """A and b as safetensors: there is no pipeline that could hold an affine map. The assistant is left out."""
        folder.mkdir(parents=True, exist_ok=True)
        shape = torch.tensor(self.latent_shape, dtype=torch.int64)
        save_file({"shape": shape, **self.network.state_dict()}, folder / WEIGHTS)

    @classmethod
    def load_pretrained(cls, folder: Path) -> AffineGenerator:
        """The counterpart of `save_pretrained`."""
        saved = load_file(folder / WEIGHTS)
        return cls(AffineMap(saved["matrix"], saved["bias"]), tuple(saved["shape"].tolist()))


@dataclass
class ExactAssistant:
    """The score of the generator's samples in closed form, for its parameters at the moment of the call.

    `dipp train --set assistant_model=./mine.py:assistant` takes one by name; `beside` makes it of what a run has.

    Attributes:
        generator: whose samples; any generator with a Gaussian `law` and any prompt will do.
        schedule: the forward process.
    """

    generator: AffineGenerator
    schedule: Schedule

    @classmethod
    def beside(cls, generator: Generator, reference: Reference) -> ExactAssistant:
        """The assistant of a run's generator under its reference's forward process.

        Raises:
            RequestError: the generator has no Gaussian `law`.
        """
        if not isinstance(getattr(generator, "law", None), Gaussian):
            raise RequestError(
                f"An exact assistant needs a generator whose law is known, with an attribute `law` that is a Gaussian; "
                f"{type(generator).__name__} has none. Use dipp_toolkit.verify.AffineGenerator, or leave out "
                "assistant_model."
            )
        return cls(cast(AffineGenerator, generator), reference.denoiser.schedule)

    def predict_x0(self, x_t: Latents, t: Float[Tensor, " batch"], condition: Condition) -> Latents:
        law = self.generator.law
        return law.denoise(x_t.flatten(1), self.schedule.alpha(t), self.schedule.sigma(t)).reshape(x_t.shape)

    def update(self, x0: Latents, condition: Condition, random: torch.Generator) -> float:
        """Nothing to learn; the loss is 0."""
        return 0.0

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """There is no state."""


@dataclass(frozen=True)
class FormulaDenoiser(Denoiser):
    """$E[x_0 | x_t]$ of a Gaussian that a prompt moves, as a formula instead of a network.

    Attributes:
        empty: the law without a prompt.
        given: the law with one, of the same covariance.
    """

    empty: Gaussian
    given: Gaussian

    @classmethod
    def of(cls, empty: Gaussian, given: Gaussian, schedule: Schedule) -> FormulaDenoiser:
        """The denoiser of the two laws."""
        return cls(nn.Identity(), schedule, "sample", lambda network, x_t, time, condition: x_t, empty, given)

    def predict_x0(self, x_t: Latents, t: Float[torch.Tensor, " batch"], condition: Condition) -> Latents:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        moved = condition.tensors[GIVEN] * (self.given.mean - self.empty.mean)
        denoised = self.empty.denoise(x_t.flatten(1) - alpha[:, None] * moved, alpha, sigma) + moved
        return denoised.reshape(x_t.shape)


@dataclass
class AnyTimeReference(GaussianReference):
    """The world's reference, to be asked at every time and not to be copied; `times` says nothing here."""

    def __post_init__(self) -> None:
        self.denoiser = FormulaDenoiser.of(self.empty, self.given, self.schedule)

    @classmethod
    def like(cls, reference: GaussianReference, schedule: Schedule) -> AnyTimeReference:
        """The laws of a reference under another forward process."""
        return cls(reference.empty, reference.given, schedule, reference.times)
