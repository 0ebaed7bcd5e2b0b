"""The folder of a fitted reward as a differentiable reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.preferences.fit.folder import config_of, files_of_folder, load_folder
from dipp_toolkit.rewards.fitted_folders import FIT
from dipp_toolkit.rewards.model_reward import ModelReward
from dipp_toolkit.utils.content_digests import file_digest
from dipp_toolkit.utils.fingerprint import digest_of
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.messages import shown
from dipp_toolkit.utils.paths import user_path


class Fitted(ModelReward):
    r"""A Bradley-Terry reward of votes: of two images of one prompt a voter prefers the first with $\sigma(r_1 - r_2)$.

    Its mean over the images that were voted on is 0; `deviation_within_prompts` in the folder's `fit.json` says how
    far scores of one prompt lie apart. One of several members is a `FittedEnsemble`, which doubts.

    Args:
        folder: that `dipp reward fit` wrote.
        precision: `fp32` or `bf16`.
        batch: images at a time, 0 for all.
        preprocess: `auto`, `pillow` or `tensor`.

    Raises:
        RequestError: an option is out of range, or the folder holds no fitted reward.
    """

    name = "fitted"
    licence = "the votes' owner's, and that of the backbone that it was fitted on"
    source = "Bradley and Terry 1952; your votes, by dipp reward fit"
    range = "log-odds of a vote, with mean 0 over the images that were voted on"
    blind_to = "what the voters did not see: far from the images that they compared it extrapolates"
    gradient = "through the resize, the image's network, and the image's colours and edges"

    def __new__(
        cls, folder: str | Path = "", precision: str = "fp32", batch: int = 0, preprocess: str = "auto"
    ) -> Fitted:
        """Of the class that doubts, where there are several members; the options are those that it takes."""
        several = cls is Fitted and config_of(_checked(folder)).members > 1
        return super().__new__(FittedEnsemble if several else cls)

    def __init__(self, folder: str | Path = "", precision: str = "fp32", batch: int = 0, preprocess: str = "auto"):
        self.folder = _checked(folder)
        fitted = load_folder(self.folder)
        self.backbone = fitted.backbone
        super().__init__(fitted.scorer, fitted.backbone.preprocess, way=preprocess, precision=precision, batch=batch)

    @classmethod
    def find_files(cls, folder: str | Path = "", **_others: Any) -> list[Path]:
        """The files that its scores are made of; a published backbone's configuration is fetched where it is not here.

        Raises:
            RequestError: the folder holds no fitted reward, or is not whole.
        """
        return files_of_folder(_checked(folder))

    def score_identity(self) -> str:
        """A digest of its files: weights, units, adapters, tokenizer, preprocessing, backbone."""
        own = [[path.name, file_digest(path)] for path in files_of_folder(self.folder)]
        return digest_of([own, self.network.first.config.backbone, self.way, str(self.dtype)])

    def read(self, prompts: Sequence[str]) -> Float[Tensor, "prompts features"]:
        """Unit features of prompts; what is beyond the backbone's tokens is cut."""
        features: Tensor = self.network.read(self.backbone.ids(prompts).to(self.device))
        return features

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, " batch"]:
        assert texts is not None
        scores: Tensor = self.network(pixels, texts)
        return scores


class FittedEnsemble(Fitted):
    """The mean of several members, fitted to prompts drawn with replacement, which disagree where votes say little."""

    @torch.no_grad()
    def doubt(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """How far the members disagree about each image, in units of the score."""
        self.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            pixels = self.preprocess(images, self.way).to(self.dtype)
            doubts: Tensor = self.network.doubt(pixels, self.texts(list(prompts))).float()
        return doubts


def _checked(folder: str | Path) -> Path:
    """The folder.

    Raises:
        RequestError: it holds no fitted reward.
    """
    if not str(folder):
        raise RequestError(
            "The reward 'fitted' is the one in a folder; name the folder itself, as in --reward ./my-reward."
        )
    path = user_path(folder)
    if not (path / FIT).is_file():
        raise RequestError(
            f"There is no fitted reward in {shown(path)} (looked for {FIT} there). Fit one with: dipp reward fit"
        )
    return path
