"""MPS's network on transformers' CLIP, and the way there from the original checkpoint's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.preprocess import normalised
from dipp_toolkit.utils.deterministic import resized

HUB = "RE-N-Y/mpsv1"
END = 49407
"""CLIP's token for the end of a text, which also fills up what is shorter."""
WIDENED = 4
ROTARY_BASE = 10000.0


@dataclass(frozen=True)
class Sizes:
    """What decides the architecture; the defaults are those of the published weights.

    Attributes:
        text: of CLIP's text tower, as transformers' `CLIPTextConfig` takes it.
        vision: of its image tower, as `CLIPVisionConfig` takes it.
        width: of the space that both are projected to.
        layers: that attend from image to text.
        heads: of each.
        head_width: of each head.
    """

    text: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "hidden_act": "gelu",
        }
    )  # fmt: skip
    vision: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
            "hidden_act": "gelu", "patch_size": 14, "image_size": 224,
        }
    )  # fmt: skip
    width: int = 1024
    layers: int = 4
    heads: int = 16
    head_width: int = 64


class CrossAttention(nn.Module):
    """Attention of image tokens to words, all heads with one key and value, beside a gated feed-forward layer."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.queries = nn.Linear(width, heads * head_width, bias=False)
        self.keys_values = nn.Linear(width, 2 * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.widen = nn.Linear(width, 2 * WIDENED * width, bias=False)
        self.narrow = nn.Linear(WIDENED * width, width, bias=False)

    def forward(
        self,
        image: Float[Tensor, "batch tokens width"],
        words: Float[Tensor, "batch words width"],
        kept: Bool[Tensor, "batch words"],
    ) -> Float[Tensor, "batch tokens width"]:
        """What is added to the image tokens; words that are not kept are not attended to."""
        normed = self.norm(image)
        keys, values = self.keys_values(words)[:, None].chunk(2, dim=-1)
        read = attend(_by_head(self.queries(normed), self.heads), keys, values, kept[:, None, None])
        added: Tensor = self.out(read) + self.narrow(_gated(self.widen(normed)))
        return added


class SelfAttention(nn.Module):
    """Attention among image tokens with rotary positions, beside a gated feed-forward layer; one matrix for both."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.parts = (heads * head_width, head_width, head_width, 2 * WIDENED * width)
        self.norm = nn.LayerNorm(width, bias=False)
        self.fused = nn.Linear(width, sum(self.parts), bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.narrow = nn.Linear(WIDENED * width, width, bias=False)

    def forward(self, image: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """What is added to the image tokens."""
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        queries, key, value, wide = self.fused(self.norm(image)).split(self.parts, dim=-1)
        cosines, sines = rotations(image.shape[1], key.shape[-1], key)
        turned, keys = apply_rotary_pos_emb(_by_head(queries, self.heads), key[:, None], cosines, sines)
        added: Tensor = self.out(attend(turned, keys, value[:, None])) + self.narrow(_gated(wide))
        return added


class MPSNetwork(nn.Module):
    """CLIP, and layers in which its image tokens attend to its text tokens.

    Args:
        sizes: of the architecture.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        sizes = sizes or Sizes()
        text = {**sizes.text, "bos_token_id": END - 1, "eos_token_id": END, "pad_token_id": END}
        config = CLIPConfig(text_config=text, vision_config=dict(sizes.vision), projection_dim=sizes.width)
        shape = (sizes.width, sizes.heads, sizes.head_width)
        self.clip: Any = CLIPModel(config)
        self.cross = nn.ModuleList(CrossAttention(*shape) for _ in range(sizes.layers))
        self.own = nn.ModuleList(SelfAttention(*shape) for _ in range(sizes.layers))

    def read(self, ids: Int[Tensor, "batch words"]) -> Float[Tensor, "batch words_and_end width"]:
        """Projected features of every token, filling ones too, and after them the one that stands for the text."""
        read = self.clip.text_model(input_ids=ids)
        tokens = torch.cat([read.last_hidden_state, read.pooler_output[:, None]], dim=1)
        projected: Tensor = self.clip.text_projection(tokens)
        return projected

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 size size"],
        words: Float[Tensor, "batch words width"],
        kept: Bool[Tensor, "batch words"],
    ) -> Float[Tensor, "batch width"]:
        """The image's feature once it has attended to the words that are kept."""
        # The original projects what comes before CLIP's last norm, which transformers puts on the pooled token alone.
        image: Tensor = self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).last_hidden_state)
        for cross, own in zip(self.cross, self.own, strict=True):
            image = image + cross(image, words, kept)
            image = image + own(image)
        return image[:, 0]

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by, float32."""
        scale: Tensor = self.clip.logit_scale.float().exp()
        return scale


def attend(
    queries: Float[Tensor, "batch heads tokens width"],
    keys: Float[Tensor, "batch 1 keys width"],
    values: Float[Tensor, "batch 1 keys width"],
    kept: Bool[Tensor, "batch 1 1 keys"] | None = None,
) -> Float[Tensor, "batch tokens all_heads"]:
    """Softmax attention of all heads to one key and value, side by side."""
    heads = queries.shape[1]
    keys, values = keys.expand(-1, heads, -1, -1), values.expand(-1, heads, -1, -1)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=kept).transpose(1, 2).flatten(2)


def rotations(
    tokens: int, width: int, like: Tensor
) -> tuple[Float[Tensor, "1 {tokens} {width}"], Float[Tensor, "1 {tokens} {width}"]]:
    """Cosines and sines of rotary positions (Su et al. 2021, arXiv 2104.09864), in the dtype and place of `like`.

    Angles are float32 whatever the precision: a bfloat16 one would be off by up to half a radian at the last token.
    """
    frequencies = ROTARY_BASE ** -(torch.arange(0, width, 2, device=like.device) / width)
    angles = torch.outer(torch.arange(tokens, device=like.device), frequencies).repeat(1, 2)[None]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def kept_words(
    words: Float[Tensor, "batch words width"], condition: Float[Tensor, "others width"], threshold: float
) -> Bool[Tensor, "batch words"]:
    r"""The words that a condition picks: $\max_j w_i \cdot k_j$ over the largest of the text, above a threshold."""
    nearest = (words.float() @ condition.float().T).amax(dim=-1)
    return nearest / nearest.amax(dim=-1, keepdim=True) > threshold


def _by_head(tokens: Tensor, heads: int) -> Tensor:
    """`(batch, tokens, heads * width)` to `(batch, heads, tokens, width)`."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def _gated(wide: Tensor) -> Tensor:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), the gate being the second half."""
    value, gate = wide.chunk(2, dim=-1)
    return F.silu(gate) * value


RENAMED = (
    (r"^(mps\.)?model\.", "clip."),
    (r"^(mps\.)?cross_model\.layers\.(\d+)\.0\.fn\.", r"cross.\2."),
    (r"^(mps\.)?cross_model\.layers\.(\d+)\.1\.fn\.", r"own.\2."),
)
WITHIN = {
    "to_q": "queries", "to_kv": "keys_values", "to_out": "out", "ff.0": "widen", "ff.2": "narrow",
    "fused_attn_ff_proj": "fused", "attn_out": "out", "ff_out.1": "narrow",
}  # fmt: skip
"""Of the layers' matrices, the original's names to these."""


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original checkpoint's tensors, or its copy's with `mps.` before them, by this network's names.

    The original's norms have a bias that is never trained, zero, and its rotary positions are in the checkpoint as
    well; both keep names that this network does not ask for.
    """
    found = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in RENAMED:
            new, count = re.subn(pattern, replacement, new)
            if count:
                break
        layer = re.fullmatch(r"((?:cross|own)\.\d+)\.(.+)\.weight", new)
        if layer is not None:
            new = f"{layer.group(1)}.{WITHIN.get(layer.group(2), layer.group(2))}.weight"
        found[new] = tensor
    return found


class FixedTextMPS(nn.Module):
    """MPS with random weights and one fixed text, of which every word is kept: what `dipp plan` runs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MPSNetwork()
        self.register_buffer("words", torch.randn(1, 78, Sizes().width))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        small = resized(images, (224, 224), "bicubic")
        words = cast(Tensor, self.words).to(images.dtype).expand(len(images), -1, -1)
        kept = torch.ones(words[:, :-1].shape[:2], dtype=torch.bool, device=images.device)
        features = self.network(normalised(small), words[:, :-1], kept)
        return self.network.scale * F.cosine_similarity(features, words[:, -1])


def blueprint() -> RewardBlueprint:
    """MPS without its weights."""
    return RewardBlueprint(HUB, FixedTextMPS)
