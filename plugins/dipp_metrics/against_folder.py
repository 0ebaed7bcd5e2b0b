"""Metrics that compare with a folder of real images: `fid`, `cmmd`, `precision-recall`, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.evaluation.frechet import ReferenceFrechet
from dipp_toolkit.evaluation.image_files import list_images, read_image
from dipp_toolkit.evaluation.mmd import CMMD_SCALE, CMMD_SIGMA, gaussian_mmd, kernel_mean, resampled_mmd
from dipp_toolkit.evaluation.precision_recall import neighbour_radii, neighbourhood, resampled_neighbourhood
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
                f"The metric '{name}' needs at least {least} real images; {folder} contains {len(self.files)}."
            )
        self.extractor = load_extractor(features, weights)
        self.notes: list[str] = []
        self._device = torch.device("cpu")

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """Features of each image, float32; prompts do not matter.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or there is not one prompt for each.
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
            for _, same in groupby(pixels, key=lambda image: image.shape):
                parts.append(self.extractor(torch.stack(list(same)).to(self._device)).cpu())
        self._same_length({part.shape[1] for part in parts})
        return torch.cat(parts)

    def rows(self, features: Float[Tensor, "prompts seeds dimensions"]) -> Float[Tensor, "images dimensions"]:
        """All rows of the made images, checked against those of the real ones.

        Raises:
            RequestError: the two have features of different lengths.
        """
        self._same_length({self.real.shape[1], features.shape[-1]})
        return features.detach().cpu().flatten(0, 1)

    def note(self, sentence: str) -> None:
        """Keep a sentence for the reader, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def _same_length(self, lengths: set[int]) -> None:
        if len(lengths) > 1:
            counts = " and ".join(str(length) for length in sorted(lengths))
            raise RequestError(
                f"The metric '{self.name}' compares rows of one length, and '{self.extractor.name}' gave rows of "
                f"{counts} numbers: scale the real images to the size of the made ones, or choose other features."
            )


class Fid(AgainstFolder):
    r"""Frechet distance of the Gaussian fits of real and of made features,

    $$|\mu_r - \mu_g|^2 + \mathrm{tr}\,(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2}).$$

    Heusel et al. 2017, arXiv 1706.08500. It is biased upwards for few images: compare at one count only, and where
    there are fewer images than features, prefer `cmmd`; `notes` then says so.

    Args:
        images: a folder of real images.
        features: `inception`, `clip:MODEL`, `pixels` or `file.py:function`.
        weights: a local file of Inception's weights.

    Raises:
        RequestError: the folder or the features cannot be used.
    """

    better: Mapping[str, str] = {"fid": "lower"}

    def __init__(self, images: str = "", features: str = "inception", weights: str = ""):
        super().__init__("fid", images, features, weights, least=2)

    @cached_property
    def reference(self) -> ReferenceFrechet:
        """Moments of the real images."""
        return ReferenceFrechet(self.real)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"fid": ...}`, 0 or more."""
        rows = self.rows(features)
        for name, count in (("made", len(rows)), ("real", len(self.real))):
            if count <= rows.shape[1]:
                self.note(
                    f"fid: {count} {name} images with {rows.shape[1]} features each give a covariance that is not of "
                    "full rank; the distance is biased upwards, and comparable at this count alone."
                )
        return {"fid": self.reference.distance(rows)}

    def standard_errors(
        self, features: Float[Tensor, "prompts seeds dimensions"], counts: Float[Tensor, "resamples prompts"]
    ) -> dict[str, float]:
        """`{"fid": ...}`, by the distance's influence function; nothing is drawn."""
        return {"fid": self.reference.standard_error(features.detach().cpu())}


MODEL = "clip:openai/clip-vit-large-patch14-336"


class Cmmd(AgainstFolder):
    r"""$1000\,\mathrm{MMD}^2$ of unit CLIP ViT-L/14 embeddings at 336 pixels, Gaussian kernel, $\sigma = 10$, biased.

    Jayasumana et al. 2024, arXiv 2401.09603. It assumes no Gaussian, and its bias is small for a few thousand images.

    Args:
        images: a folder of real images.
        features: the paper's CLIP, another `clip:MODEL`, `inception`, `pixels` or `file.py:function`. Numbers of
            different features are not comparable.
        sigma: the kernel's width; the paper's fits features of length 1.
        weights: a local file of Inception's weights, where features is `inception`.

    Raises:
        RequestError: the folder or the features cannot be used, or sigma is not above 0.
    """

    better: Mapping[str, str] = {"cmmd": "lower"}

    def __init__(self, images: str = "", features: str = MODEL, sigma: float = CMMD_SIGMA, weights: str = ""):
        super().__init__("cmmd", images, features, weights, least=1)
        if not sigma > 0:
            raise RequestError(f"The metric 'cmmd' needs sigma above 0; got {sigma}.")
        self.sigma = sigma

    @cached_property
    def real_mean(self) -> float:
        """Mean kernel over pairs of real images."""
        return kernel_mean(self.real, self.real, self.sigma)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`{"cmmd": ...}`, in [0, 2000]."""
        return {"cmmd": CMMD_SCALE * gaussian_mmd(self.rows(features), self.real, self.sigma, self.real_mean)}

    def standard_errors(
        self, features: Float[Tensor, "prompts seeds dimensions"], counts: Float[Tensor, "resamples prompts"]
    ) -> dict[str, float]:
        """`{"cmmd": ...}` over prompts drawn `counts` times."""
        each = counts.repeat_interleave(features.shape[1], dim=1)
        drawn = resampled_mmd(self.rows(features), self.real, each, self.sigma, self.real_mean)
        return {"cmmd": CMMD_SCALE * drawn.std().item()}


class PrecisionRecall(AgainstFolder):
    """Precision, recall, density and coverage; see `dipp_toolkit.evaluation.precision_recall`.

    Precision and density are means over made images, and so have a value for every prompt. Recall and coverage belong
    to the set; prompts drawn twice hold no new image, so a bootstrap draws them a little low.

    Args:
        images: a folder of real images.
        features: `inception`, `clip:MODEL`, `pixels` or `file.py:function`.
        k: neighbours that make a ball.
        weights: a local file of Inception's weights.

    Raises:
        RequestError: the folder or the features cannot be used, or k is below 1.
    """

    better: Mapping[str, str] = dict.fromkeys(("precision", "recall", "density", "coverage"), "higher")

    def __init__(self, images: str = "", features: str = "inception", k: int = 5, weights: str = ""):
        super().__init__("precision-recall", images, features, weights, least=k + 1)
        self.k = k

    @cached_property
    def real_radii(self) -> Float[Tensor, " images"]:
        """Of the balls around the real images."""
        return neighbour_radii(self.real, self.k)

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> dict[str, float | Tensor]:
        """`precision` and `density` `(P,)`, `recall` and `coverage`; all in [0, 1] but density, which may exceed 1.

        Raises:
            RequestError: there are not more than k made images.
        """
        neighbours = neighbourhood(self.real, self.rows(features), self.k, self.real_radii)
        shape = features.shape[:2]
        return {
            "precision": neighbours.precise.reshape(shape).mean(1),
            "recall": neighbours.recall,
            "density": neighbours.dense.reshape(shape).mean(1),
            "coverage": neighbours.coverage,
        }

    def standard_errors(
        self, features: Float[Tensor, "prompts seeds dimensions"], counts: Float[Tensor, "resamples prompts"]
    ) -> dict[str, float]:
        """Those of `recall` and `coverage` over prompts drawn `counts` times."""
        each = counts.repeat_interleave(features.shape[1], dim=1)
        recall, coverage = resampled_neighbourhood(self.real, self.rows(features), each, self.k, self.real_radii)
        return {"recall": recall.std().item(), "coverage": coverage.std().item()}
