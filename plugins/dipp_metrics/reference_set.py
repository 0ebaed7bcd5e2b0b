"""What metrics share that compare with a folder of real images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.image_files import list_images, read_image
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.paths import user_path

from .extractors import load_extractor

BATCH = 32


class AgainstFolder:
    """Features of images, and those of a folder's, which are taken once.

    Args:
        name: the metric's, for messages.
        images: a folder of real images.
        features: see `dipp_metrics.extractors.load_extractor`.
        weights: a local file of Inception's weights.
        least: how many real images the metric needs.

    Attributes:
        notes: sentences that somebody who reads the figures should know.

    Raises:
        RequestError: the folder is not given, missing or holds too few images, or the features cannot be loaded.
    """

    def __init__(self, name: str, images: str, features: str, weights: str, least: int):
        self.name = name
        if not images:
            raise RequestError(
                f"The metric '{name}' compares with a folder of real images; name it with images=FOLDER, on the "
                f"command line --set metric.{name}.images=FOLDER."
            )
        folder = user_path(images)
        self.files = list_images(folder)
        if len(self.files) < least:
            raise RequestError(
                f"The metric '{name}' needs at least {least} real images; {folder} holds {len(self.files)}."
            )
        self.extractor = load_extractor(features, weights)
        self.notes: list[str] = []
        self._device = torch.device("cpu")

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """Features of each image, float32; prompts do not matter.

        Raises:
            RequestError: the images are no `(B, 3, H, W)` batch, or there is not one prompt for each.
            RunError: the extractor failed.
        """
        check_inputs(self.name, images, prompts)
        self._device = images.device
        return self.extractor(images)

    @cached_property
    def real(self) -> Float[Tensor, "images dimensions"]:
        """Features of the folder's images, on the CPU, in the order of their names.

        Raises:
            RequestError: an image cannot be read, or images of several sizes have features of several lengths.
        """
        parts = []
        for start in range(0, len(self.files), BATCH):
            pixels = [read_image(path).pixels for path in self.files[start : start + BATCH]]
            for _, same in groupby(pixels, key=lambda one: one.shape):
                parts.append(self.extractor(torch.stack(list(same)).to(self._device)).cpu())
        self._same_length({part.shape[1] for part in parts})
        return torch.cat(parts)

    def rows(self, features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, "images dimensions"]:
        """All rows of the made images, checked against those of the real ones.

        Raises:
            RequestError: the two have not the same features.
        """
        self._same_length({self.real.shape[1], features.shape[-1]})
        return features.detach().cpu().flatten(0, 1)

    def note(self, sentence: str) -> None:
        """Keep a sentence for the reader, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _same_length(self, lengths: set[int]) -> None:
        if len(lengths) > 1:
            counts = " and ".join(str(one) for one in sorted(lengths))
            raise RequestError(
                f"The metric '{self.name}' compares rows of one length, and '{self.extractor.name}' gave rows of "
                f"{counts} numbers: scale the real images to the size of the made ones, or choose other features."
            )
