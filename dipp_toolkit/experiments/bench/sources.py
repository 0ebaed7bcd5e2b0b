"""What makes a bench's images: a generator with its decoder, or a reference with its own sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...diffusion.condition import Condition
from ...diffusion.schedules import FlowMatching
from ...distributed.shared_draws import digest_seed
from ...models.few_steps import draws_noise, step_count
from ...models.guidance_embedding import told_otherwise
from ...models.reference import DiffusersReference
from ...models.sized import decoder_beside, generator_at, reference_at
from ...models.stock_call import stock_call_of
from ...models.text_encoders import prompt_encoder
from ...prompts.cache import PromptCache, default_cache, encoder_folder
from ...protocols import EncoderReference, Generator, GuidedReference, Reference
from ...rewards.code_digests import code_digest
from ...utils.fingerprint import digest_of, weights_digest
from ...utils.image_sizes import Size
from ...utils.images import Images


def noise_of(prompts: Sequence[str], seeds: Sequence[int], shape: tuple[int, ...]) -> Float[Tensor, "count ..."]:
    """Standard normal noise, one of `shape` for each prompt and seed: `(N, *shape)`, on the CPU.

    The random generator is seeded with a digest of prompt and seed, so that an image does not depend on the size of
    the set, its order, or which process makes it; generators with one latent shape are given the same noise.
    """
    digests = (digest_seed(f"{seed}\0{prompt}".encode()) for prompt, seed in zip(prompts, seeds, strict=True))
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(digest)) for digest in digests])


@dataclass
class Source:
    """An `ImageSource`: a generator's one pass or few, or a reference's steps where there is no generator.

    Attributes:
        reference: decodes, encodes prompts, and samples where `generator` is None.
        generator: makes latents in its own number of steps.
        steps: of the reference's sampler.
        guidance: of the reference's sampler.
    """

    reference: Reference
    generator: Generator | None = None
    steps: int = 1
    guidance: float = 1.0
    _cache: PromptCache | None = field(default=None, repr=False)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        encoder = prompt_encoder(self.reference)
        if encoder is None:
            return self.networks_without_text()
        pipeline = encoder.load()
        return self.networks_without_text() | {name: getattr(pipeline, name) for name in encoder.names}

    @property
    def device(self) -> torch.device:
        return next(self.reference.denoiser.network.parameters()).device

    @property
    def evaluations(self) -> int:
        if self.generator is not None:
            return step_count(self.generator)
        two_passes = self.guidance != 1
        if isinstance(self.reference, GuidedReference):
            two_passes = self.reference.takes_two_passes(self.guidance)
        return self.steps * (2 if two_passes else 1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple((self.generator or self.reference).latent_shape)

    def at(self, size: Size | None) -> Source:
        """This source, of images of a size: height and width in pixels, None for its own.

        Raises:
            RequestError: it cannot draw them.
        """
        if self.generator is None:
            return replace(self, reference=reference_at(self.reference, size))
        generator = generator_at(self.generator, size)
        return replace(self, generator=generator, reference=decoder_beside(self.reference, generator))

    def fingerprint(self) -> str:
        """SHA-256 of all that decides an image beside prompt and seed: weights, sampler, times, text encoders, and
        the code of somebody's own."""
        encoder = prompt_encoder(self.reference)
        text = encoder_folder(default_cache(), encoder).parts[-2:] if encoder is not None else ()
        scheduler = getattr(self.reference, "scheduler", None)
        code = list(filter(None, map(code_digest, (self.reference, self.generator))))
        return digest_of(
            {
                "weights": weights_digest(self.networks_without_text()),
                "text": text,
                "latents": list(self.latent_shape),
                "scheduler": dict(scheduler.config) if scheduler is not None and self.generator is None else "",
                "readout": getattr(self.generator, "readout", "") if self.generator is not None else "",
                "steps": self.steps if self.generator is None else self.evaluations,
                "guidance": self.guidance if self.generator is None else 1.0,
            }
            | ({"code": code} if code else {})
            | _decoded_otherwise(self.reference)
            | ({"input_scale": "sigma"} if getattr(self.generator, "input_scale", "unit") == "sigma" else {})
            | _told_otherwise(self.generator or self.reference)
            | ({"times": getattr(self.generator, "times", "")} if self.generator and self.evaluations > 1 else {})
            | ({"step_noise": "none"} if self.generator and self.evaluations > 1 and not self._fresh else {})
            | ({"sampled": "as stock"} if self.generator is None and was_sampled_otherwise(self.reference) else {})
        )

    @property
    def _fresh(self) -> bool:
        """Whether noise is drawn between a generator's steps."""
        return self.generator is None or draws_noise(self.generator)

    def networks_without_text(self) -> dict[str, nn.Module]:
        """The denoising network and the decoder."""
        networks: dict[str, nn.Module] = {
            "network": self.generator.network if self.generator is not None else self.reference.denoiser.network
        }
        vae = getattr(self.reference, "vae", None)
        return networks | ({"vae": vae} if isinstance(vae, nn.Module) else {})

    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode prompts through the cache and release a pipeline's text encoders."""
        encoder = prompt_encoder(self.reference)
        if encoder is not None:
            self._cache = PromptCache(encoder_folder(default_cache(), encoder))
            self._cache.encode(encoder, [*prompts, ""])
            encoder.release()
            cast(EncoderReference, self.reference).keep_null(self._condition([""]).to(self.device))

    def _condition(self, prompts: Sequence[str]) -> Condition:
        if self._cache is not None and not self._cache.missing(prompts):
            return cast(EncoderReference, self.reference).at_size(self._cache.read(prompts))
        return self.reference.encode(prompts)

    @torch.no_grad()
    def images(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        noise = noise_of(prompts, seeds, self.latent_shape).to(self.device)
        condition = self._condition(prompts).to(self.device)
        if self.generator is not None:
            latents = self.generator.generate(noise, condition)
        else:
            latents = self.reference.sample(condition, noise, self.steps, self.guidance)
        return self.reference.decode(latents).float().cpu()


def was_sampled_otherwise(reference: Reference) -> bool:
    """Whether images of this reference may be there that an earlier version drew otherwise than the stock pipeline.

    Those of schedulers that draw noise depended on the images beside them, and those of flow matching were shifted by
    resolution otherwise.
    """
    if not isinstance(reference, DiffusersReference):
        return False
    if isinstance(reference.denoiser.schedule, FlowMatching):
        return True
    return stock_call_of(reference.family).draws_noise(reference.scheduler, reference.latent_shape)


def _told_otherwise(part: Any) -> dict[str, float]:
    """The guidance that the network of a generator or reference is told, where that is not its family's own."""
    told = told_otherwise(getattr(part, "family", None))
    return {} if told is None else {"guidance_embedding": told}


def _decoded_otherwise(reference: Reference) -> dict[str, Any]:
    """How latents are normalised, where an earlier version did not heed it."""
    from ...models.autoencoding import autoencoding_of
    from ...models.reference import DiffusersReference

    if not isinstance(reference, DiffusersReference):
        return {}
    space = autoencoding_of(reference.family).space(reference.vae.config)
    return {"latent_space": [space.factor, space.std, space.mean]} if space.normalised else {}
