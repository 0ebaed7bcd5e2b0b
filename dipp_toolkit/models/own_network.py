"""A network of somebody's own as a generator: `own_generator(network, latent_shape=...)`, whatever its signature."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..diffusion.condition import Condition
from ..errors import RequestError
from ..protocols import Latents, Reference
from .drawing import draw

WEIGHTS = "network.safetensors"
"""The file of a saved network."""
Call = Callable[[nn.Module, Tensor, Condition], Tensor]
"""`call(network, noise, condition)`: latents like the noise."""


def _plain_call(network: nn.Module, noise: Tensor, condition: Condition) -> Tensor:
    made: Tensor = network(noise, condition)
    return made


@dataclass
class OwnGenerator:
    """A generator $g(z, c)$ around a network of any signature; see `own_generator`.

    Attributes:
        network: what is trained.
        latent_shape: of one noise and one latent, such as `(4, 64, 64)`.
        call: calls the network.
        reference: encodes prompts and decodes latents where pictures are drawn; None where none is known yet.
    """

    network: nn.Module
    latent_shape: tuple[int, ...]
    call: Call = _plain_call
    reference: Reference | None = None

    def generate(self, noise: Latents, condition: Condition) -> Latents:
        """Latents like `noise`."""
        return self.call(self.network, noise, condition)

    def __call__(self, prompts: str | Sequence[str], seed: int = 0, *, batch_size: int = 32) -> Any:
        """Draw: one picture of one text, a list of pictures of a list.

        Raises:
            RequestError: no reference is known, or a prompt is empty or too long.
        """
        if self.reference is None:
            raise RequestError(
                "This generator knows no reference that encodes prompts and decodes its latents. Give it one: "
                "own_generator(network, reference=load_reference(...))."
            )
        return draw(self, self.reference, prompts, seed, batch_size)

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        """Write the network's weights."""
        from safetensors.torch import save_model  # tensors that two layers share are written once

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.network, str(folder / WEIGHTS))

    def load_pretrained(self, folder: Path, **options: Any) -> OwnGenerator:
        """This generator with the weights that a training of it saved; the network itself stays as it is.

        Args:
            folder: a run's, or its `final/`.
            options: none.

        Raises:
            RequestError: no weights are there, or they are another network's.
        """
        from safetensors.torch import load_model

        places = [place / WEIGHTS for place in (Path(folder), Path(folder) / "final")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise RequestError(f"There is no {WEIGHTS} in {folder}; expected the folder of a run, or its final/.")
        network = copy.deepcopy(self.network)
        try:
            load_model(network, str(file))
        except RuntimeError as error:
            raise RequestError(
                f"The weights in {file} are not of this network: {str(error).splitlines()[0]}"
            ) from error
        return OwnGenerator(network, self.latent_shape, self.call, self.reference)


def own_generator(
    network: nn.Module,
    latent_shape: Sequence[int] | None = None,
    *,
    call: Callable[[nn.Module, Float[Tensor, "batch ..."], Condition], Float[Tensor, "batch ..."]] | None = None,
    reference: Reference | None = None,
) -> OwnGenerator:
    """A network of your own as a generator that `train` takes.

        >>> from torch import nn
        >>> network = nn.Conv2d(4, 4, 3, padding=1)
        >>> own_generator(network, (4, 32, 32), call=lambda network, noise, condition: network(noise)).latent_shape
        (4, 32, 32)

    Args:
        network: makes latents of noise; all its parameters that require gradients are trained.
        latent_shape: of one noise and one latent, without the batch; the reference's where it is left out.
        call: `call(network, noise, condition)` gives latents like the noise, `(batch, *latent_shape)`, differentiable
            with respect to the parameters. `condition.prompts` are the texts and `condition.tensors` what the reference
            encodes them as. `network(noise, condition)` where it is left out.
        reference: encodes prompts and decodes latents where pictures are drawn; a training's own takes its place.

    Raises:
        RequestError: the network is no `nn.Module`, or nothing gives the shape.
    """
    if not isinstance(network, nn.Module):
        raise RequestError(f"The network is a {type(network).__name__}; expected a torch.nn.Module.")
    shape = latent_shape if latent_shape is not None else getattr(reference, "latent_shape", None)
    if shape is None:
        raise RequestError(
            "The shape of a latent is not known; give latent_shape=(channels, height, width), or a reference."
        )
    return OwnGenerator(network, tuple(int(size) for size in shape), call or _plain_call, reference)
