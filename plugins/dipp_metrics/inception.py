"""The Inception-v3 of the Frechet inception distance: torch-fidelity's port of the network of 2015.

Its resize is TensorFlow 1's and it looks at 8-bit images, as the first FID did (Heusel et al. 2017, arXiv 1706.08500):
numbers are those of torch-fidelity. torchmetrics smooths when it resizes, unless told `antialias=False`, and differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from dipp_toolkit.errors import RequestError, first_line
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.paths import user_path
from dipp_toolkit.utils.tensor_files import read_state, tensors_of

LAYER = "2048"


def load_inception(weights: str = "") -> Any:
    """The network up to its last pooling.

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
