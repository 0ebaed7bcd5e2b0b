"""The trained rewards of the emoji world: `emoji-clip` and `emoji-preference`; without weights for `dipp plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    PretrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
)

from dipp_toolkit.errors import PluginError
from dipp_toolkit.models.blueprints import RewardBlueprint
from dipp_toolkit.rewards.scores import check_inputs
from dipp_toolkit.rewards.text_features import TextFeatures
from dipp_toolkit.rewards.weights import load_pretrained
from dipp_toolkit.utils.deterministic import resized
from dipp_toolkit.utils.images import Images
from dipp_toolkit.utils.paths import user_path

from .compose import SIZE
from .text import EOS, CaptionTokenizer

WEIGHTS = Path(__file__).parent / "weights"


def to_pixels(images: Images, size: int = SIZE) -> Float[Tensor, "batch 3 {size} {size}"]:
    """Images in [0, 1] as a model's input in [-1, 1], resized (antialiased) to `size` where they have another size."""
    images = images.float()
    if images.shape[-2:] != (size, size):
        images = resized(images, (size, size), "bilinear")
    return images * 2 - 1


class EmojiReward:
    """What the trained rewards share: a frozen model and its tokenizer in one folder, checked inputs, float32 scores.

    Attributes:
        differentiable: True; gradients flow from the scores to the images.
        model: the network, in evaluation mode, without gradients of its own.
        tokenizer: of the captions it was trained on.
    """

    differentiable = True
    name = "reward"
    licence = "Apache-2.0"
    model_class: type[PreTrainedModel]
    load_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: str | Path | None = None):
        """Load `folder`, or the weights that come with the plugin.

        Raises:
            PluginError: the folder holds no model.
            RequestError: it holds one of another kind, or a pickle.
        """
        self.folder = user_path(folder) if folder is not None else WEIGHTS / self.name.removeprefix("emoji-")
        if not (self.folder / "config.json").is_file():
            raise PluginError(
                f"There are no weights for '{self.name}' in {self.folder}: expected config.json, model.safetensors and "
                "tokenizer.json. Build them with the emoji recipe, or give another folder."
            )
        self.tokenizer = CaptionTokenizer.load(self.folder)
        model: Any = load_pretrained(self.model_class, self.folder, self.name, **self.load_options)
        self.model: Any = model.float().eval().requires_grad_(False)
        self.texts = TextFeatures(self._read)

    @classmethod
    def find_files(cls, folder: str | Path | None = None) -> list[Path]:
        """The weights' file, by the options of the reward."""
        place = user_path(folder) if folder is not None else WEIGHTS / cls.name.removeprefix("emoji-")
        return [place / "model.safetensors"]

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1] for their prompts, float32, higher is better.

        Raises:
            RequestError: the images are not a `(B, 3, H, W)` batch, or there is not one prompt for each.
        """
        check_inputs(self.name, images, prompts)
        with self._float32(images.device):
            return self.score(to_pixels(images), self.texts(list(prompts)))

    def _read(self, prompts: Sequence[str]) -> Float[Tensor, "prompts features"]:
        return self.read(self.tokenizer(prompts).to(self.model.device))

    def read(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch features"]:
        """Features of captions; each caption is read once and kept."""
        features: Tensor = self.model.text_features(ids)
        return features

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch features"]
    ) -> Float[Tensor, " batch"]:
        """Scores of images in [-1, 1] for what was read."""
        quality, matched = self.model.parts(self.model.image_features(pixels), texts)
        scores: Tensor = quality + matched
        return scores

    def _float32(self, device: torch.device) -> torch.autocast:
        """Bring the model to the images' device, and keep a surrounding autocast out of the scores."""
        if self.model.device != device:
            self.model.to(device)
            self.texts.forget()
        return torch.autocast(device.type, enabled=False)


class EmojiClip(EmojiReward):
    r"""Agreement of image and caption: $r(x, c) = 100 \cos(f(x), g(c))$, in [-100, 100], as in CLIPScore.

    `f` and `g` are the towers of a CLIP trained on captioned compositions under noise, blur, shifts and changes of
    colour: it judges what is shown and on which background, and cares little for sharpness.
    """

    name = "emoji-clip"
    model_class = CLIPModel
    load_options: ClassVar[dict[str, Any]] = {
        "attn_implementation": "eager"
    }  # twice as fast as the fused kernels for 65 tokens on a CPU

    def read(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch features"]:
        return embed_captions(self.model, ids)

    def score(
        self, pixels: Float[Tensor, "batch 3 size size"], texts: Float[Tensor, "batch features"]
    ) -> Float[Tensor, " batch"]:
        return 100 * (embed_pixels(self.model, pixels) * texts).sum(-1)


def embed_pixels(clip: CLIPModel, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch features"]:
    """Unit embeddings of images in [-1, 1]."""
    return F.normalize(clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output).float(), dim=-1)


def embed_captions(clip: CLIPModel, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch features"]:
    """Unit embeddings of captions."""
    return F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output).float(), dim=-1)


class PreferenceConfig(PretrainedConfig):
    """Sizes of a `PreferenceModel`.

    Attributes:
        vision: arguments of `ResNetConfig`.
        text: arguments of `CLIPTextConfig`.
        match_scale: the most that agreement with the caption can add or take away.
    """

    model_type = "emoji-preference"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        match_scale: float = 3.0,
        **kwargs: Any,
    ):
        self.vision = vision or {
            "embedding_size": 32, "hidden_sizes": [48, 96, 160, 192], "depths": [2, 2, 1, 1], "layer_type": "basic",
        }  # fmt: skip
        self.text = text or {
            "vocab_size": 253, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": 12, "pad_token_id": 0, "eos_token_id": EOS,
            "bos_token_id": None,
        }  # fmt: skip
        self.match_scale = match_scale
        super().__init__(**kwargs)


class QualityAndMatch(PreTrainedModel):
    r"""$r(x, c) = q(v) + m \cos(W v, u)$ with $v$ the image's and $u$ the caption's features.

    The first part is the quality of the image by itself, the second, which is bounded, how well it shows what the
    caption says: no agreement makes up for a ruined image. $v$ is the average of a convolutional network's last map.

    A subclass builds `vision`, `quality` and `match`, reads captions by `text_features`, and has `match_scale` in its
    configuration.
    """

    main_input_name = "pixels"
    vision: nn.Module
    quality: nn.Module
    match: nn.Module

    def image_features(self, pixels: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch features"]:
        """Features of images in [-1, 1]."""
        features: Tensor = self.vision(pixels.contiguous(memory_format=torch.channels_last)).pooler_output
        return features.flatten(1)

    def text_features(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch shared"]:
        """Features of captions."""
        raise NotImplementedError

    def parts(
        self, image: Float[Tensor, "*#batch features"], text: Float[Tensor, "*#batch shared"]
    ) -> tuple[Float[Tensor, "*#batch"], Float[Tensor, "*#batch"]]:
        """The two summands from the features, which broadcast: quality, and match with the caption."""
        agreement = F.cosine_similarity(self.match(image).float(), text.float(), dim=-1)
        return self.quality(image)[..., 0].float(), self.config.match_scale * agreement

    def forward(
        self, pixels: Float[Tensor, "batch 3 size size"], ids: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, " batch"]:
        """Scores of images in [-1, 1] for captions."""
        quality, matched = self.parts(self.image_features(pixels), self.text_features(ids))
        return quality + matched


class PreferenceModel(QualityAndMatch):
    """A small ResNet looks, a small CLIP text tower reads."""

    config_class = PreferenceConfig

    def __init__(self, config: PreferenceConfig):
        super().__init__(config)
        vision, text = ResNetConfig(**config.vision), CLIPTextConfig(**config.text)
        text._attn_implementation = "eager"
        self.vision = ResNetModel(vision)
        self.text = CLIPTextModel(text)
        width = vision.hidden_sizes[-1]
        self.quality = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.match = nn.Linear(width, text.hidden_size)
        self.post_init()

    def text_features(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch shared"]:
        features: Tensor = self.text(input_ids=ids).pooler_output
        return features


class EmojiPreference(EmojiReward):
    r"""A Bradley-Terry reward: $P(x \succ y \mid c) = \sigma(r(x, c) - r(y, c))$, in log-odds, mostly within [-5, 5].

    Trained on pairs whose order is known: a real composition over a degraded one and over a model's sample, a lightly
    degraded one over a heavily degraded one, the right caption over a wrong one.
    """

    name = "emoji-preference"
    model_class = PreferenceModel


def _random_model(reward: type[EmojiReward]) -> Any:
    model_class: Any = reward.model_class
    config = model_class.config_class.from_pretrained(WEIGHTS / reward.name.removeprefix("emoji-"))
    return model_class._from_config(config, **reward.load_options)


class ClipNetwork(nn.Module):
    """`emoji-clip` with random weights.

    A caption's features are the same all through a run and are kept, so that images are scored against one fixed
    caption's, here and in `PreferenceNetwork`.
    """

    caption: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = _random_model(EmojiClip)
        self.register_buffer("caption", torch.randn(1, self.model.config.projection_dim))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        return 100 * (embed_pixels(self.model, to_pixels(images)) * self.caption).sum(-1)


class PreferenceNetwork(nn.Module):
    """`emoji-preference` with random weights."""

    caption: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = _random_model(EmojiPreference)
        self.register_buffer("caption", torch.randn(1, self.model.match.out_features))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1]."""
        quality, matched = self.model.parts(self.model.image_features(to_pixels(images)), self.caption)
        return quality + matched


def clip_blueprint() -> RewardBlueprint:
    """`emoji-clip`."""
    return RewardBlueprint("emoji-clip", ClipNetwork)


def preference_blueprint() -> RewardBlueprint:
    """`emoji-preference`."""
    return RewardBlueprint("emoji-preference", PreferenceNetwork)
