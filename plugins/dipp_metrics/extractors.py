"""What turns images into features, by name: `inception`, `clip:<model>`, `pixels`, or one's own Python function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError, RunError
from dipp_toolkit.evaluation.pixel_features import pixel_features
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.exception_text import raised
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.imports import check_call, is_python_name, load_python_name
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.packages import missing_of, not_installed

CLIP = "clip:"
NAMES = ("inception", "pixels")


@dataclass
class Extractor:
    """A function from images to features, checked at both ends.

    Attributes:
        name: as it was asked for.
        function: images in [0, 1], `(B, 3, H, W)`, to `(B, D)`.
        network: what the function runs, or None.
    """

    name: str
    function: Callable[[Tensor], Any]
    network: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, images: Images) -> Float[Tensor, "batch dimensions"]:
        """Features in float32, where the images are.

        Raises:
            RequestError: the images are no `(B, 3, H, W)` batch in floating point.
            RunError: the function failed, or returned something else than one finite row for each image.
        """
        check_inputs(self.name, images, None)
        if self.network is not None:
            self.network.to(images.device)
        try:
            with torch.autocast(images.device.type, enabled=False):
                found = torch.as_tensor(self.function(images))
        except (RequestError, RunError):
            raise
        except Exception as error:  # a user's own code raises anything
            raise RunError(f"The features '{self.name}' failed with {raised(error)}.") from error
        if found.ndim != 2 or len(found) != len(images):
            raise RunError(
                f"The features '{self.name}' have shape {tuple(found.shape)}; expected one row for each image, "
                f"({len(images)}, dimensions)."
            )
        if not torch.isfinite(found).all():
            raise RunError(f"The features '{self.name}' hold a value that is not finite.")
        return found.detach().float()


def load_extractor(features: str, weights: str = "") -> Extractor:
    """An extractor by name.

    Args:
        features: `inception`; `clip:` with a folder, a hub id of transformers or `MODEL/TAG` of open_clip; `pixels`;
            `file.py:function` or `module:function`, of images in [0, 1] to `(B, D)`, or a class without arguments
            whose objects are such functions.
        weights: a local file of Inception's weights; empty to fetch the published one.

    Raises:
        RequestError: the name is unknown, or what it names cannot be loaded.
    """
    if weights and features != "inception":
        raise RequestError(f"weights=FILE belongs to features=inception; the features '{features}' take none.")
    if features == "pixels":
        return Extractor(features, pixel_features)
    if features == "inception":
        require("torch_fidelity", features)
        from .inception import inception_features, load_inception

        network = load_inception(weights)
        return Extractor(features, lambda images: inception_features(network, images), network)
    if features.startswith(CLIP):
        require("torchvision", features)
        from .clip_images import load_clip_images

        function, network = load_clip_images(features.removeprefix(CLIP))
        return Extractor(features, function, network)
    if is_python_name(features):
        found = load_python_name(features, "features")
        if inspect.isclass(found):
            check_call(found, (), f"features '{features}'")
            found = found()
        check_call(found, ("images",), f"features '{features}'")
        return Extractor(features, found, found.eval() if isinstance(found, nn.Module) else None)
    raise RequestError(
        unknown_name("set of features", features, NAMES)
        + " Others are clip:FOLDER, clip:MODEL/TAG of open_clip, and file.py:function."
    )


def require(module: str, features: str) -> None:
    """Refuse features whose package is not installed.

    Raises:
        RequestError: with what to type.
    """
    if missing_of([module]):
        raise not_installed(f"The features '{features}' need", [module], extra="metrics")
