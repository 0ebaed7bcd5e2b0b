"""What turns images into features, by name: `inception`, `clip:<model>`, `pixels`, or one's own Python function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipp_toolkit.errors import RequestError, RunError, first_line
from dipp_toolkit.evaluation.diversity import pixel_features
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.exception_text import raised
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.imports import check_call, is_python_name, load_python_name
from dipp_toolkit.utils.messages import unknown_name
from dipp_toolkit.utils.packages import missing_of, not_installed
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

CLIP = "clip:"
NAMES = ("inception", "pixels")


@dataclass
class Extractor:
    """A function from images to features, checked at both ends.

    Attributes:
        name: as typed.
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
            RequestError: the images are not a `(B, 3, H, W)` batch in floating point.
            RunError: the function failed, or returned something else than one finite row for each image.
        """
        check_inputs(self.name, images, None)
        if self.network is not None:
            self.network.to(images.device)
        try:
            with torch.autocast(images.device.type, enabled=False):
                features = torch.as_tensor(self.function(images))
        except (RequestError, RunError):
            raise
        except Exception as error:  # a user's own code raises anything
            raise RunError(f"The features '{self.name}' failed with {raised(error)}.") from error
        if features.ndim != 2 or len(features) != len(images):
            raise RunError(
                f"The features '{self.name}' have shape {tuple(features.shape)}; expected one row for each image, "
                f"({len(images)}, dimensions)."
            )
        if not torch.isfinite(features).all():
            raise RunError(f"The features '{self.name}' contain a value that is not finite.")
        return features.detach().float()


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
        network = load_inception(weights)
        return Extractor(features, lambda images: inception_features(network, images), network)
    if features.startswith(CLIP):
        require("torchvision", features)
        from .clip_images import load_clip_images

        function, network = load_clip_images(features.removeprefix(CLIP))
        return Extractor(features, function, network)
    if is_python_name(features):
        custom = load_python_name(features, "features")
        if inspect.isclass(custom):
            check_call(custom, (), f"features '{features}'")
            custom = custom()
        check_call(custom, ("images",), f"features '{features}'")
        return Extractor(features, custom, custom.eval() if isinstance(custom, nn.Module) else None)
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


LAYER = "2048"


def load_inception(weights: str = "") -> Any:
    """The Inception-v3 of the Frechet inception distance up to its last pooling: torch-fidelity's port of that of 2015.

    Its resize is TensorFlow 1's and it looks at 8-bit images, as the first FID did (Heusel et al. 2017, arXiv
    1706.08500): numbers are those of torch-fidelity. torchmetrics smooths when it resizes, unless it is called with
    `antialias=False`, and differs.

    Args:
        weights: a local file as torch-fidelity publishes it; empty to fetch it once, to torch's hub cache.

    Raises:
        RequestError: the weights are missing, damaged, of another network, or cannot be fetched.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = user_path(weights) if weights else fetch_weights()
    if not path.is_file():
        raise RequestError(f"There is no file {path} of Inception's weights (looked in {path.parent.resolve()}).")
    tensors_of(read_state(path), path)  # torch-fidelity would unpickle anything; this refuses all but tensors
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], str(path))
    except (RuntimeError, TypeError) as error:
        raise RequestError(f"{path} does not fit Inception-v3: {first_line(error)}.") from error


def fetch_weights() -> Path:
    """The published weights, 91 MB, fetched once.

    Raises:
        RequestError: they cannot be fetched.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    name = URL_INCEPTION_V3.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start_of_digest = name.rsplit("-", 1)[-1].removesuffix(".pth")
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=start_of_digest, progress=False)
    except (OSError, RuntimeError) as error:
        raise RequestError(
            f"Inception's weights cannot be fetched: {first_line(error)}. Fetch {URL_INCEPTION_V3} elsewhere and name "
            "the file with weights=FILE, or choose other features, such as features=clip:FOLDER."
        ) from error
    return path


def inception_features(network: Any, images: Images) -> Float[torch.Tensor, "batch 2048"]:
    """What the last pooling gives for images in [0, 1], rounded to 8 bits."""
    features: torch.Tensor = network(images.clamp(0, 1).mul(255).round().byte())[0]
    return features
