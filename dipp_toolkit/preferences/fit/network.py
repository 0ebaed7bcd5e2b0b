"""The network of a fitted reward, which TRL trains: a backbone, the features that are made of it, and a head."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .backbone import read, see
from .head import GroupedHead
from .statistics import MAPS, image_maps, on_grid

GRIDS = (1, 4)
MATCH = "match"


class FittedConfig(PretrainedConfig):
    """What a fitted reward's `config.json` says.

    Attributes:
        kind: of the backbone, `clip` or `siglip`.
        backbone: `hub` and `revision` of a published one; empty where it lies in the folder `backbone`.
        width: of the image tower's patches.
        embedding: of both towers' embeddings.
        image_mean: of each channel, as `preprocessor_config.json` has it.
        image_std: likewise.
        members: networks that were fitted.
        lora_rank: of their adapters; 0 where the backbone is as it was.
    """

    model_type = "dipp-fitted-reward"

    def __init__(
        self,
        kind: str = "clip",
        backbone: dict[str, str] | None = None,
        width: int = 1,
        embedding: int = 1,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        members: int = 1,
        lora_rank: int = 0,
        **others: Any,
    ):
        self.kind, self.backbone = kind, dict(backbone or {})
        self.width, self.embedding = width, embedding
        self.image_mean, self.image_std = list(image_mean or []), list(image_std or [])
        self.members, self.lora_rank = members, lora_rank
        super().__init__(**{"num_labels": 1} | others)

    @property
    def sizes(self) -> dict[str, int]:
        """Features of each group, in their order; `match` is the product of the two embeddings."""
        grids = {f"grid{cells}": MAPS * cells**2 for cells in GRIDS}
        return grids | {"patches": self.width, "embedding": self.embedding, MATCH: self.embedding}


class PreferenceNetwork(PreTrainedModel):
    """Log-odds of an image for its prompt, up to a constant; see `GroupedHead`.

    Args:
        config: of its sizes.
        backbone: the towers, loaded; several networks may share one.
    """

    config_class = FittedConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _no_split_modules: tuple[str, ...] = ()

    def __init__(self, config: FittedConfig, backbone: nn.Module):
        super().__init__(config)
        self.post_init()  # before there are weights, which it would draw anew
        self.head = GroupedHead(config.sizes)
        self.backbone = backbone

    def image_features(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch features"]:
        """All groups but the last, of prepared pixels."""
        patches, embedding = see(self.backbone, self.config.kind, pixels)
        level, spread = (
            torch.tensor(channels, device=pixels.device, dtype=pixels.dtype)[:, None, None]
            for channels in (self.config.image_mean, self.config.image_std)
        )
        maps = image_maps((pixels * spread + level).float())
        grids = [on_grid(maps, cells) for cells in GRIDS]
        return torch.cat([*grids, patches.float(), embedding.float()], 1)

    def read(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """Embeddings of prompts."""
        return read(self.backbone, self.config.kind, ids).float()

    def all_features(
        self, images: Float[Tensor, "batch features"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, "batch all_features"]:
        """Those of images, and of how they match their prompts."""
        return torch.cat([images, images[:, -self.config.embedding :] * texts], 1)

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"] | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Float[Tensor, "batch 3 size size"] | None = None,
        features: Float[Tensor, "batch features"] | None = None,
        texts: Float[Tensor, "batch embedding"] | None = None,
        margin: Tensor | None = None,
        use_cache: bool | None = None,
        **_others: Any,
    ) -> SequenceClassifierOutput:
        """As TRL's trainer calls a model.

        Args:
            input_ids: tokens of the prompts, read where `texts` are not given.
            attention_mask: TRL counts tokens by it; both towers of text read padding as they were trained to.
            pixel_values: prepared images, seen where `features` are not given.
            features: `image_features`, kept from before where the backbone does not change.
            texts: likewise, the prompts' embeddings.
            margin: the trainer's.
            use_cache: there is none; TRL passes it.

        Returns:
            `logits`, `(batch, 1)`.
        """
        if features is None:
            assert pixel_values is not None
            features = self.image_features(pixel_values)
        if texts is None:
            assert input_ids is not None
            texts = self.read(input_ids)
        return SequenceClassifierOutput(logits=self.head(self.all_features(features, texts))[:, None])
