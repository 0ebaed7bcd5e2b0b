"""CLIP-FlanT5 on transformers' CLIP and T5: image tokens among the words of a question, and an answer's probability."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.preprocess import normalised
from dipp_toolkit.utils.deterministic import resized

HUB = "zhiqiulin/clip-flant5-xl"
HEAD_WIDTH = 64
"""Of every attention, in CLIP ViT-L and in T5 of all sizes."""
WORDS = 32100
"""T5's tokens. Tables have more rows in some checkpoints, which the original cuts off: no softmax counts them."""
END, PAD = 1, 0


@dataclass(frozen=True)
class Sizes:
    """What decides the architecture; the defaults are CLIP-FlanT5-XL's.

    Attributes:
        text_width: of T5.
        text_hidden: of its feed-forward layers.
        text_layers: of its encoder, and of its decoder.
        text_heads: of both.
        words: that it knows.
        vision_width: of CLIP.
        vision_hidden: of its feed-forward layers.
        vision_layers: that are run: all but the last, whose output LLaVA's models do without.
        patch: side of what is a token.
        image: side of what it sees.
    """

    text_width: int = 2048
    text_hidden: int = 5120
    text_layers: int = 24
    text_heads: int = 32
    words: int = WORDS
    vision_width: int = 1024
    vision_hidden: int = 4096
    vision_layers: int = 23
    patch: int = 14
    image: int = 336

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Sizes:
        """Those of a checkpoint, by this network's names.

        Raises:
            KeyError: a tensor is missing that says one.
        """
        patches = tensors["vision.embeddings.patch_embedding.weight"]
        positions = len(tensors["vision.embeddings.position_embedding.weight"]) - 1
        return cls(
            text_width=tensors["t5.shared.weight"].shape[1],
            text_hidden=len(tensors["t5.encoder.block.0.layer.1.DenseReluDense.wi_0.weight"]),
            text_layers=_count(tensors, r"t5\.encoder\.block\.(\d+)\."),
            text_heads=len(tensors["t5.encoder.block.0.layer.0.SelfAttention.q.weight"]) // HEAD_WIDTH,
            words=len(tensors["t5.shared.weight"]),
            vision_width=len(patches),
            vision_hidden=len(tensors["vision.encoder.layers.0.mlp.fc1.weight"]),
            vision_layers=_count(tensors, r"vision\.encoder\.layers\.(\d+)\.") - 1,
            patch=patches.shape[-1],
            image=round(positions**0.5) * patches.shape[-1],
        )


class VQAScoreNetwork(nn.Module):
    """CLIP's image tokens, two linear layers with GELU between, and a T5 that reads them among the question's words.

    Args:
        sizes: of the architecture.
    """

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

        sizes = sizes or Sizes()
        tower: Any = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=sizes.vision_width, intermediate_size=sizes.vision_hidden, hidden_act="quick_gelu",
                num_hidden_layers=sizes.vision_layers, num_attention_heads=sizes.vision_width // HEAD_WIDTH,
                patch_size=sizes.patch, image_size=sizes.image,
            )
        )  # fmt: skip
        # Versions of transformers before 5 have the tower one level further down.
        self.vision: Any = getattr(tower, "vision_model", tower)
        self.projector = nn.Sequential(
            nn.Linear(sizes.vision_width, sizes.text_width), nn.GELU(), nn.Linear(sizes.text_width, sizes.text_width)
        )
        self.t5: Any = T5ForConditionalGeneration(
            T5Config(
                vocab_size=sizes.words, d_model=sizes.text_width, d_kv=HEAD_WIDTH, d_ff=sizes.text_hidden,
                num_layers=sizes.text_layers, num_heads=sizes.text_heads, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
        )  # fmt: skip
        # Flan-T5 has a table of its own for what it says; versions of transformers from 5 on begin with one for both.
        self.t5.lm_head = nn.Linear(sizes.text_width, sizes.words, bias=False)

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 size size"],
        before: Int[Tensor, " words_before"],
        after: Int[Tensor, "batch words_after"],
        answer: Int[Tensor, " words_answered"],
    ) -> Float[Tensor, " batch"]:
        """The mean log-probability of the answer's tokens, float32.

        Args:
            pixels: what CLIP sees.
            before: tokens before the image, the same for all.
            after: those after it, filled up with `PAD` on the right.
            answer: its tokens.
        """
        # The class token is left out.
        image = self.projector(self.vision(pixel_values=pixels).last_hidden_state[:, 1:])
        words = self.t5.shared
        tokens = torch.cat([words(before).expand(len(after), -1, -1), image, words(after)], dim=1)
        seen = torch.ones(len(after), len(before) + image.shape[1], dtype=torch.bool, device=after.device)
        logits = self.t5(
            inputs_embeds=tokens, attention_mask=torch.cat([seen, after != PAD], dim=1).long(), use_cache=False,
            decoder_input_ids=F.pad(answer[:-1], (1, 0), value=PAD).expand(len(after), -1),
        ).logits  # fmt: skip
        every = logits.float().log_softmax(dim=-1)
        return every.gather(-1, answer.expand(len(after), -1)[..., None])[..., 0].mean(dim=1)


RENAMED = (
    (r"^vision_tower\.vision_tower\.vision_model\.", "vision."),
    (r"^v\.vision_model\.", "vision."),
    (r"^mm_projector\.", "projector."),
    (r"^(?:t5\.)?((?:shared|encoder|decoder|lm_head)\.)", r"t5.\1"),
)


def converted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of the authors', or of the package `imscore`, by this network's names, without rows beyond `WORDS`.

    Raises:
        KeyError: it has no table of words.
    """
    found = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in RENAMED:
            new, count = re.subn(pattern, replacement, new)
            if count:
                break
        found[new] = tensor[:WORDS] if new in ("t5.shared.weight", "t5.lm_head.weight") else tensor
    if "t5.shared.weight" not in found:
        raise KeyError("shared.weight")
    for side in ("encoder", "decoder"):  # one table, which a checkpoint may hold three times
        found[f"t5.{side}.embed_tokens.weight"] = found["t5.shared.weight"]
    return found


def tie_words(network: VQAScoreNetwork) -> None:
    """Make one table of words again of the three that a filled network has."""
    for side in (network.t5.encoder, network.t5.decoder):
        side.embed_tokens.weight = network.t5.shared.weight


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that a pattern finds in the names."""
    numbers = [int(found.group(1)) for name in tensors if (found := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


class FixedTextVQAScore(nn.Module):
    """CLIP-FlanT5-XL with random weights and one fixed question: what `dipp plan` runs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = VQAScoreNetwork()
        self.register_buffer("before", torch.ones(38, dtype=torch.long))
        self.register_buffer("after", torch.ones(1, 48, dtype=torch.long))
        self.register_buffer("answer", torch.ones(2, dtype=torch.long))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        small = resized(images, (Sizes.image, Sizes.image), "bicubic")
        before, after, answer = (cast(Tensor, tokens) for tokens in (self.before, self.after, self.answer))
        scores: Tensor = self.network(normalised(small), before, after.expand(len(images), -1), answer)
        return scores.exp()


def blueprint() -> RewardBlueprint:
    """CLIP-FlanT5-XL without its weights."""
    return RewardBlueprint(HUB, FixedTextVQAScore)
