"""What reward and judge learn from: real images, spoilt ones, samples of models, wrong captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import Tensor

from dipp_toolkit.errors import RequestError
from dipp_toolkit.utils.precision import native_autocast

from ..captions import BACKGROUNDS, emoji
from ..compose import compose

JITTERS = 16
SAMPLE_SHARE = 0.5
"""Share of the groups whose second image is a model's sample, where there are samples."""
LATENT_SHAPE = (4, 32, 32)
NOISE_FLOOR = 0.006
"""Deviation of the noise on every input while training: hides whether pixels were ever rounded to 8 bits or less."""

Degradations = Mapping[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]]


def compose_bank(pairs: Tensor, jitters: int, generator: torch.Generator) -> Tensor:
    """`jitters` compositions of each pair `(P, 2)`, uint8, `(P, jitters, 3, 64, 64)`."""
    parts = [
        compose(chunk[:, 0], chunk[:, 1], generator).mul(255).round().byte()
        for chunk in pairs.repeat_interleave(jitters, 0).split(256)
    ]
    return torch.cat(parts).unflatten(0, (len(pairs), jitters))


def distinct_rows(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """`batch` different indices below `count`."""
    return torch.randperm(count, generator=generator)[:batch]


def ordered_versions(images: Tensor, degradations: Degradations, generator: torch.Generator, chunk: int = 8) -> Tensor:
    """Two spoilt versions of each image, spoilt in the same way, the first less than the second.

    One or two kinds are drawn for every `chunk` images, and severities for each image, small ones more often, so that
    the order is taught from barely visible to ruined.

    Args:
        images: in [0, 1], `(B, 3, 64, 64)`.

    Returns:
        In [0, 1], `(2, B, 3, 64, 64)`.
    """
    versions = torch.stack([images, images])
    kinds = list(degradations.values())
    for rows in torch.arange(len(images)).split(chunk):
        chosen = distinct_rows(len(kinds), 1 + int(torch.randint(2, (), generator=generator)), generator)
        heavy = (0.05 + 0.95 * torch.rand(len(rows), generator=generator) ** 1.5) / len(chosen) ** 0.5
        severities = (heavy * 0.7 * torch.rand(len(rows), generator=generator), heavy)
        for kind in chosen.tolist():
            state = generator.get_state()
            for version, severity in enumerate(severities):
                generator.set_state(state)
                versions[version, rows] = kinds[kind](versions[version, rows], severity, generator).clamp(0, 1)
    return versions


@torch.no_grad()
def round_trip(vae: AutoencoderTiny, images: Tensor, noise: Tensor | None = None, *, exact: bool = False) -> Tensor:
    """Images in [0, 1] encoded and decoded, with `noise` added to the latents where given.

    In bfloat16 where the CPU computes it, four times as fast, unless `exact`: its rounding must not tell a composition
    from a sample.
    """
    with nullcontext() if exact else native_autocast():
        latents = vae.encoder(images.mul(2).sub(1).contiguous(memory_format=torch.channels_last))
        if noise is not None:
            latents = latents + noise
        decoded: Tensor = vae.decoder(latents)
    return decoded.float().mul(0.5).add(0.5).clamp(0, 1).contiguous()


def load_vae(folder: Path) -> AutoencoderTiny:
    """The world's autoencoder, frozen, in float32."""
    vae: AutoencoderTiny = AutoencoderTiny.from_pretrained(folder).float().eval().requires_grad_(False)
    return vae.to(memory_format=torch.channels_last)


class ModelSamples:
    """Samples of named models, as images with their pairs: half of each file, so that reward and judge share none.

    Every `<name>.safetensors` of a folder holds `images` (uint8, `(N, 3, 64, 64)`), `emoji` and `background` (int64,
    `(N,)`).
    """

    def __init__(self, folder: Path, half: int, hold: float = 0.1):
        """Read all files; the last `hold` of each is kept for measuring.

        Raises:
            RequestError: the folder holds no samples.
        """
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            raise RequestError(f"There are no samples in {folder}: expected files like onestep.safetensors.")
        self.training: dict[str, dict[str, Tensor]] = {}
        self.held: dict[str, dict[str, Tensor]] = {}
        for file in files:
            rows = {key: value[half::2] for key, value in load_file(file).items()}
            cut = int(len(rows["images"]) * (1 - hold))
            self.training[file.stem] = {key: value[:cut] for key, value in rows.items()}
            self.held[file.stem] = {key: value[cut:] for key, value in rows.items()}

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and pairs `(count, 2)`, from all models alike."""
        names = list(self.training)
        images, pairs = [], []
        for index in torch.randint(len(names), (count,), generator=generator).tolist():
            source = self.training[names[index]]
            row = int(torch.randint(len(source["images"]), (), generator=generator))
            images.append(source["images"][row])
            pairs.append(torch.stack([source["emoji"][row], source["background"][row]]))
        return torch.stack(images).float() / 255, torch.stack(pairs).long()


def wrong_pairs(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """For each pair, one with another emoji and one with another background, `(2, B, 2)`."""
    counts = torch.tensor([len(emoji()), len(BACKGROUNDS)])
    wrong = torch.stack([pairs, pairs])
    for axis, count in enumerate(counts.tolist()):
        step = 1 + torch.randint(count - 1, (len(pairs),), generator=generator)
        wrong[axis, :, axis] = (pairs[:, axis] + step) % count
    return wrong


class Groups:
    """Batches of ordered images: `(3, B, 3, 64, 64)`, best first, with the pair that each group's caption names.

    Attributes:
        table: the pairs that may be composed, `(P, 2)`.
        degradations: what spoils images.
        vae: the world's autoencoder; its decoder makes every image of a generator.
        samples: models' samples, or None.
        generator: source of all randomness.
        latent_share: share of the composed groups spoilt by noise on the latents instead.
    """

    def __init__(
        self,
        table: Tensor,
        degradations: Degradations,
        vae: AutoencoderTiny,
        samples: ModelSamples | None,
        generator: torch.Generator,
        *,
        latent_share: float = 0.0,
    ):
        self.table, self.degradations, self.vae, self.samples = table, degradations, vae, samples
        self.generator, self.latent_share = generator, latent_share
        self.bank = compose_bank(table, JITTERS, generator)
        self.row_of = {tuple(pair): row for row, pair in enumerate(table.tolist())}

    def real(self, rows: Tensor) -> Tensor:
        """Compositions of rows of the table, in [0, 1]."""
        jitter = torch.randint(JITTERS, rows.shape, generator=self.generator)
        return self.bank[rows, jitter].float() / 255

    def draw(self, count: int) -> tuple[Tensor, Tensor, int]:
        """`count` groups, their pairs `(count, 2)`, and how many leading groups hold no sample.

        A group is a real image and two spoilt versions of it; where there are samples, half of the groups are a real
        image, a sample of the same pair and a spoilt version of that sample.
        """
        sampled = int(count * SAMPLE_SHARE) if self.samples is not None else 0
        rows = distinct_rows(len(self.table), count - sampled, self.generator)
        images = self._degraded(rows)
        pairs_ = self.table[rows]
        if self.samples is not None and sampled:
            worse, shown = self.samples.draw(sampled, self.generator)
            groups = torch.stack(
                [self._real_of(shown), worse, ordered_versions(worse, self.degradations, self.generator)[1]]
            )
            images, pairs_ = torch.cat([images, groups], 1), torch.cat([pairs_, shown])
        return images, pairs_, count - sampled

    def _degraded(self, rows: Tensor) -> Tensor:
        real = self.real(rows)
        groups = torch.stack([real, *ordered_versions(real, self.degradations, self.generator)])
        latent = round(len(rows) * self.latent_share)
        if latent:
            heavy = torch.rand(latent, generator=self.generator)
            light = heavy * torch.rand(latent, generator=self.generator)
            draw = torch.randn(latent, *LATENT_SHAPE, generator=self.generator)
            for version, amount in ((1, light), (2, heavy)):
                groups[version, :latent] = round_trip(self.vae, real[:latent], amount[:, None, None, None] * draw)
        # A generator's images all come from the decoder: half of the images pass through it, good or bad, so that
        # having passed through it tells nothing.
        flat = groups.flatten(0, 1)
        chosen = torch.rand(len(flat), generator=self.generator) < 0.5
        flat[chosen] = round_trip(self.vae, flat[chosen])
        return flat.unflatten(0, (3, len(rows)))

    def _real_of(self, pairs: Tensor) -> Tensor:
        """Decoded compositions of pairs; of the same emoji on another background where a pair is not in the table."""
        rows = []
        for i, j in pairs.tolist():
            shift = next(k for k in range(8) if (i, (j + k) % 8) in self.row_of)
            rows.append(self.row_of[i, (j + shift) % 8])
        return round_trip(self.vae, self.real(torch.tensor(rows)), exact=True)
