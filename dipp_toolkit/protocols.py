"""The roles that plugins fill. Each is a protocol: anything of the right shape will do, no base class to inherit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .diffusion.condition import Condition
from .diffusion.denoiser import Denoiser
from .utils.images import Images
from .utils.lazy_sequence import Mapped
from .utils.step_settings import Stepping

Latents = Float[Tensor, "batch ..."]


@runtime_checkable
class Reference(Protocol):
    """A frozen multi-step diffusion model: what the generator must stay close to.

    Attributes:
        denoiser: its network, schedule and prediction type, frozen.
        latent_shape: the shape of one latent, without the batch.
    """

    @property
    def denoiser(self) -> Denoiser:
        """The frozen denoiser."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Such as `(4, 64, 64)`."""

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Encode prompts; every call pads to the same length, so that conditions can be joined."""

    def null(self, batch: int) -> Condition:
        """The condition of the empty prompt, `batch` times."""

    def decode(self, latents: Latents) -> Images:
        """Pixels in [0, 1], float32, differentiable with respect to the latents.

        Gradients that flow back are of something that rises, a score and no loss: a decoder that clamps may hold back
        what would push a pixel far outside further out (`dipp_toolkit.models.decoding.RisingClamp`).
        """

    def sample(self, condition: Condition, noise: Latents, steps: int, guidance: float) -> Latents:
        """Multi-step sampling with the reference's own scheduler, from standard normal `noise`."""

    def to(self, device: torch.device | str) -> Reference:
        """Move every network; returns itself."""


@runtime_checkable
class Generator(Protocol):
    """A generator $x_0 = g_\\theta(z, c)$ of one step; one of several is a `few_steps.FewStepGenerator` besides.

    Attributes:
        network: holds the trainable parameters.
        latent_shape: the shape of one noise and of one latent, without the batch.
    """

    @property
    def network(self) -> nn.Module:
        """The module that is trained."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Such as `(4, 64, 64)`."""

    def generate(self, noise: Latents, condition: Condition) -> Latents:
        """Latents, differentiable with respect to the parameters; a function of noise and condition alone. Half
        precision becomes float32 before anything looks at it."""

    def save_pretrained(self, folder: Path, assistant: nn.Module | None = None) -> None:
        """Write a folder that plain diffusers loads, the assistant's network beside it where one is given."""


@runtime_checkable
class Reward(Protocol):
    """How much people would like an image for a prompt; higher is better.

    Attributes:
        differentiable: whether gradients flow from the score to the images; None where it is not known before the
            first call.
    """

    @property
    def differentiable(self) -> bool | None:
        """True where `score.sum().backward()` reaches the images. A score depends on its own image alone."""

    def __call__(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Scores of images in [0, 1], float32, one for each image."""


@runtime_checkable
class GroupReward(Reward, Protocol):
    """A reward of all images of a prompt at once: a score depends on the others of its prompt in the same call.

    Training gives it whole groups, and so do monitors and the comparison before and after; scoring files and benches,
    which look at images one by one, refuse it. `dipp_toolkit.rewards.groups` has what one needs to write one.

    Attributes:
        samples_per_prompt: how many images of each prompt a training's batches hold unless `noises_per_prompt` says
            otherwise, 2 or more; in the class as well, so that `dipp plan` reads it without weights. Elsewhere a reward
            may be given any number from 2 on.
    """

    @property
    def samples_per_prompt(self) -> int:
        """2 or more."""


@runtime_checkable
class ReportingReward(Reward, Protocol):
    """A reward that can say more of the images it has just scored: how sure it is, what its score is made of."""

    def report(self) -> Mapping[str, Float[Tensor, " batch"]]:
        """Numbers of the images of the last call, one an image, by name; training logs their means as
        `NAME/reward/THE REWARD'S NAME`. Empty where there are none."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        text: what the image is to show.
        id: what the set calls it.
        category: of those that the set has.
        file: the image that was made for it, in files that name one.
    """

    text: str
    id: str = ""
    category: str = ""
    file: str = ""


@runtime_checkable
class PromptSet(Protocol):
    """A named sequence of prompts."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def prompts(self) -> Sequence[Prompt]:
        """In a fixed order."""


@runtime_checkable
class Metric(Protocol):
    """Numbers of a whole set of images, such as a Frechet distance or a diversity.

    It works in two halves, so that images are looked at once and the bootstrap draws prompts again and again:
    `features` keeps a row of numbers of every image, `values` makes figures of the rows.

    Attributes:
        better: its figures by name, each `"higher"`, `"lower"` or, where neither is better, `""`.
    """

    @property
    def better(self) -> Mapping[str, str]:
        """The same names that `values` returns."""

    def features(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, "batch dimensions"]:
        """What is kept of each image: `(B, D)`, each row a function of its own image and prompt alone."""

    def values(self, features: Float[Tensor, "prompts seeds dimensions"]) -> Mapping[str, float | Tensor]:
        """The figures by name: a number for the set, or one a prompt, `(P,)`, whose mean over prompts is the figure."""


@runtime_checkable
class ImageSource(Protocol):
    """Whatever makes images from prompts: a one-step generator with its decoder, or a reference with its sampler.

    Attributes:
        networks: all its networks by name (`"network"`, `"vae"`, `"text_encoder"`), each once.
        device: where they are.
        evaluations: passes of the denoising network an image, guidance's second ones included.
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def evaluations(self) -> int: ...

    def images(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        """One image for each prompt and seed, in [0, 1], on the CPU; noise is a function of prompt and seed alone."""


@runtime_checkable
class CostMetric(Protocol):
    """Numbers of making images: latency, memory, parameters.

    Attributes:
        better: as for `Metric`.
    """

    @property
    def better(self) -> Mapping[str, str]: ...

    def costs(self, source: ImageSource, prompts: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Measurements by figure name, each repeated as often as it was measured (once for what is exact)."""


@runtime_checkable
class ScoreModel(Protocol):
    """Whatever estimates the denoised sample of the generator's law."""

    def predict_x0(
        self, x_t: Float[Tensor, "batch ..."], t: Float[Tensor, " batch"], condition: Condition
    ) -> Float[Tensor, "batch ..."]:
        """The denoised sample, like `x_t`."""


@runtime_checkable
class Assistant(ScoreModel, Protocol):
    """A score model that follows the generator.

    One that is not a `LearnedAssistant` updates itself, and is given the whole batch for it: the samples of all passes
    and of all processes, in the same order in every process. With the same random source everywhere, and the same
    state at the beginning, it stays the same everywhere, and nothing has to be averaged.
    """

    def update(self, x0: Float[Tensor, "batch ..."], condition: Condition, random: torch.Generator) -> float:
        """Fit a batch of the generator's samples, held fixed; returns the loss.

        Args:
            x0: all samples of the update, made without a graph.
            condition: one row a sample.
            random: the run's random source, in the same state in every process.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


@runtime_checkable
class FewStepGenerator(Protocol):
    """What a generator has besides where it may take several steps. Steps count from 0.

    Attributes:
        steps: K, 1 or more.
    """

    @property
    def steps(self) -> int:
        """How many passes of the network make a sample."""

    def read_out(self, x_t: Latents, step: int, condition: Condition) -> Latents:
        """The denoised sample of one step, differentiable with respect to the parameters and to `x_t`."""

    def noised(self, x0: Latents, noise: Latents, step: int) -> Latents:
        """What a step from 1 on reads: the sample of the step before it, noised to this step's time."""


@runtime_checkable
class DeterministicSteps(Protocol):
    """A generator of several steps that may take them without fresh noise; see `few_steps`.

    Attributes:
        step_noise: `"fresh"` noise before every step but the first, or `"none"`.
    """

    @property
    def step_noise(self) -> Literal["fresh", "none"]:
        """What a step's sample is noised with."""

    def first_input(self, noise: Latents) -> Latents:
        """What the first step reads of pure noise z: z, or sigma z."""

    def noise_in(self, x_t: Latents, x0: Latents, step: int) -> Latents:
        r"""The noise in what a step read, its sample being $x_0$: $(x_t - \alpha_t x_0) / \sigma_t$."""


# What a role may have besides. Each is optional: a role fulfils it by having the method or attribute.


@runtime_checkable
class Movable(Protocol):
    """A role that can be moved to a device."""

    def to(self, device: torch.device | str) -> Any:
        """Move it, and return it or None."""


@runtime_checkable
class Closable(Protocol):
    """A reward that holds processes or connections."""

    def close(self) -> None:
        """End them; the reward cannot be used afterwards."""


@runtime_checkable
class Identified(Protocol):
    """A reward whose scores depend on more than its own code and weights: it says itself what it is."""

    def score_identity(self) -> str:
        """A digest that changes when the scores may.

        Raises:
            RunError: whoever makes the scores does not say.
        """


@runtime_checkable
class DescribedReward(Protocol):
    """What a reward's class says of itself, in attributes that are read without its weights; see `rewards.facts`.

    Besides these a class may say, by attributes of these names, `gradient`: through what a gradient reaches the image;
    `reads_prompts`: whether the prompt matters, True where it says nothing; `asks`: who makes the scores where that is
    not a network or a formula of its own.

    Attributes:
        range: what scores there are.
        licence: of the weights; empty where the registration's `origin` says all.
        source: the paper, and where the weights are published.
        blind_to: what it cannot see, and what it is fooled by, with a source where it is no matter of the formula.
    """

    range: str
    licence: str
    source: str
    blind_to: str


@runtime_checkable
class Doubting(Protocol):
    """A reward that says how sure it is; the monitors watch that."""

    def doubt(self, images: Images, prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """How unsure it is of each image's score, in units of the score; 0 for not at all."""


@runtime_checkable
class EncoderReference(Protocol):
    """A reference of a diffusers pipeline: what its text encoders give can come from the prompt cache instead."""

    @property
    def encoder(self) -> Any:
        """A `dipp_toolkit.models.text_encoders.PromptEncoder`."""

    def at_size(self, condition: Condition, size: tuple[int, int] | None = None) -> Condition:
        """Encoded prompts with the image's size, which the cache does not hold: that of latents of this height and
        width, or the reference's own."""

    def keep_null(self, condition: Condition) -> None:
        """Use this condition of the empty prompt, `(1, ...)`, instead of encoding it."""


@runtime_checkable
class GuidedReference(Protocol):
    """A reference that says at which guidance a sampling step takes a second pass, with the empty prompt."""

    def takes_two_passes(self, guidance: float) -> bool:
        """Whether it does at this one."""


@runtime_checkable
class RewardDecoding(Protocol):
    """A reference with a decoder of its own for rewards, which takes a run's decode options."""

    def reward_decoder(self, options: Any) -> Callable[[Latents], Images]:
        """The decoder; see `dipp_toolkit.models.decoding`."""


@runtime_checkable
class ExportChecked(Protocol):
    """A generator that knows before a training whether it can be exported after it."""

    def check_exportable(self) -> None:
        """Refuse what cannot be exported.

        Raises:
            RequestError: it cannot; the message says why.
        """


@runtime_checkable
class AssistantSaved(Protocol):
    """A generator whose folder may hold the assistant of the training that it came from."""

    def load_assistant(self, network: nn.Module) -> nn.Module | None:
        """The assistant's network, of the reference network's class; None where none was saved."""


@runtime_checkable
class Reloadable(Protocol):
    """A generator's class, or another object of its name, that loads what `save_pretrained` wrote."""

    def load_pretrained(self, folder: Path, **options: Any) -> Generator:
        """The generator that was saved in this folder."""


@runtime_checkable
class StepsChangeable(Protocol):
    """A generator that can take another number of steps than it was saved with."""

    def in_steps(self, steps: int) -> Generator:
        """The same generator in so many steps."""


@runtime_checkable
class SteppingChangeable(Protocol):
    """A generator that can take its steps at other times, or with other noise between them."""

    @property
    def stepping(self) -> Stepping:
        """How it takes them."""

    def with_stepping(self, stepping: Stepping) -> Generator:
        """The same generator, its steps taken so."""


@runtime_checkable
class NotedMetric(Protocol):
    """A metric with something to tell whoever reads its figures."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences."""


@runtime_checkable
class ErrorsOfSets(Protocol):
    """A metric that knows how its numbers of the whole set vary with the prompts, faster than by `values` of each draw.

    Without it `values` is asked once for each draw of prompts.
    """

    def standard_errors(
        self, features: Float[Tensor, "prompts seeds dimensions"], counts: Float[Tensor, "resamples prompts"]
    ) -> Mapping[str, float]:
        """The standard error of every number of the set, by figure.

        Args:
            features: those that `values` was given.
            counts: how often each draw has each prompt, whole numbers that sum to P; a metric may use them or
                a formula.
        """


@runtime_checkable
class SeedsNeeded(Protocol):
    """A metric that may compare images of one prompt."""

    @property
    def needs_seeds(self) -> bool:
        """Whether it needs two or more images a prompt."""


def null_beside(reference: Reference, condition: Condition) -> Condition:
    """The condition of the empty prompt for each row of another one, for latents of the same size."""
    null = reference.null(len(condition))
    if condition.size is None or not isinstance(reference, EncoderReference):
        return null
    return reference.at_size(null, condition.size)


def moved(role: Any, device: torch.device | str) -> Any:
    """A role on a device, where it can be moved."""
    on_device = role.to(device) if isinstance(role, Movable) else None
    return role if on_device is None else on_device


def close(role: Any) -> None:
    """End the processes and connections of a role that holds any."""
    if isinstance(role, Closable):
        role.close()


class NotDecodableError(TypeError):
    """A reference without pixels (a Gaussian, say) was asked for images."""


def texts(prompts: PromptSet) -> Sequence[str]:
    """The prompts' texts, in order: a list where the prompts are one, otherwise a view of them."""
    rows = prompts.prompts
    return [prompt.text for prompt in rows] if isinstance(rows, list | tuple) else Mapped(rows, attrgetter("text"))


def describe(role: Any) -> str:
    """A short name of an object for messages."""
    return getattr(role, "name", None) or type(role).__name__
