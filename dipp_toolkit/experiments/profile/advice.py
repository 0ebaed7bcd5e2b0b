"""What to change in a run's settings, each with the measurement that says so.

A rule looks at a profile and at the settings, and gives advice only where the measurement calls for it and the setting
would change something. The limits are ours: below them a change would win little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...config import TrainConfig
from ...utils.precision import AUTO, choose_precision
from ...utils.step_parts import ASSISTANT, BACKWARD, DECODER, GENERATOR, REWARD, SAMPLES, UPDATES

if TYPE_CHECKING:
    from .run import Part, Profile

GIB = 2**30
IDLE = 0.25
"""Share of the step in which a GPU has nothing to do, from which on launches are what to look at."""
LOW_SHARE = 0.35
"""Share of the peak below which larger batches are worth a try."""
TIGHT, ROOMY = 0.75, 0.45
"""Shares of the memory above which a step is tight, and below which there is room for twice the batch."""
LARGE_PART = 0.15
"""Share of the seconds, or of the peak memory, from which on a part is worth changing."""
FRESH = 0.08
"""Share of the step that fresh samples for the assistant take, from which on reusing some is worth it."""
WAITED = 0.05
"""Share of the step for which the host waits for the GPU."""
STEADY = 3
"""Measured steps from which advice is given on what takes time: one or two say as much about what else ran."""


@dataclass(frozen=True)
class Advice:
    """What to change.

    Attributes:
        measured: what was measured, a sentence.
        change: what to do, a sentence.
        settings: what `--set` would be given; empty where there is none.
    """

    measured: str
    change: str
    settings: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.measured} {self.change}"


Rule = Callable[["Profile", TrainConfig], Iterator[Advice]]


def advice(profile: Profile, config: TrainConfig) -> list[Advice]:
    """All that applies, what helps most first.

    Args:
        profile: what was measured.
        config: resolved settings of the run.
    """
    return [item for rule in RULES for item in rule(profile, config)]


def _set(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in TrainConfig.model_fields}


def _narrow_passes(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    if config.precision == "fp32" and choose_precision(AUTO, torch.device(profile.device_type)).name != "fp32":
        yield Advice(
            "The passes are float32, and this device computes bfloat16.",
            "Set precision=auto.",
            _set(precision="auto"),
        )


def _launches(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    if profile.busy is None or 1 - profile.busy < IDLE or config.compile == "graphs":
        return
    mode, what = ("graphs", "one call replays many") if config.compile == "on" else ("on", "fewer and larger ones")
    yield Advice(
        f"{1 - profile.busy:.0%} of the step the GPU waits for Python to start its {profile.launches or 0:,} kernels.",
        f"Set compile={mode}: {what}. The first steps compile, which a long run earns back.",
        _set(compile=mode),
    )


def _larger_batch(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    share, used = profile.peak_share, _used(profile)
    if profile.device_type != "cuda" or share is None or share >= LOW_SHARE or used is None or used > ROOMY:
        return
    yield Advice(
        f"The step reaches {share:.0%} of the GPU's peak and {used:.0%} of its memory at {config.batch_size} samples.",
        f"Try batch_size={2 * config.batch_size}: a step of twice the samples takes less than twice as long.",
        _set(batch_size=2 * config.batch_size),
    )


def _needless_recomputation(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    used = _used(profile)
    names = ("gradient_checkpointing", "recompute_generator", "decode_checkpointing")
    recomputed = [name for name in names if getattr(config, name)]
    if used is not None and used < ROOMY and recomputed:
        yield Advice(
            f"The step uses {used:.0%} of the memory and computes again what there is room to keep.",
            f"Set {' and '.join(f'{name}=false' for name in recomputed)}, as far as the memory allows.",
            _set(**dict.fromkeys(recomputed, False)),
        )


def _needless_pieces(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    used = _used(profile)
    if profile.device_type != "cuda" or used is None or used > ROOMY:
        return
    if config.activation_offload:
        yield Advice(
            f"The step uses {used:.0%} of the memory and copies activations to the host and back.",
            "Set activation_offload=false.",
            _set(activation_offload=False),
        )
    if config.reward_batch and config.reward_batch < config.batch_size:
        yield Advice(
            f"The step uses {used:.0%} of the memory and scores {config.reward_batch} of {config.batch_size} samples "
            "at a time.",
            "Set reward_batch=0: all of them, with fewer kernels.",
            _set(reward_batch=0),
        )


def _waits(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    if profile.waited is None or profile.waited < WAITED:
        return
    worst = max(profile.parts, key=lambda part: part.waits or 0)
    place = next(iter(profile.waits_at), f"the part '{worst.name}'")
    yield Advice(
        f"The host waits for the GPU {profile.waits} times a step, {profile.waited:.0%} of it.",
        f"Look first at {place}: numbers can stay on the GPU until the step is over.",
        {},
    )


def _decoding_memory(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    used, (worst, most, next_most) = _used(profile), _peaks(profile)
    if used is None or used < TIGHT or not (worst == DECODER or worst.startswith(REWARD)):
        return
    measured = (
        f"Decoding and rewards set the peak: {_gib(most)}, where all other parts need {_gib(next_most)} "
        f"({used:.0%} of the memory is used)."
    )
    if not config.decode_checkpointing:
        yield Advice(measured, "Set decode_checkpointing=true.", _set(decode_checkpointing=True))
    elif not config.reward_batch and config.batch_size > 1:
        yield Advice(measured, "Set reward_batch=1: one sample at a time.", _set(reward_batch=1))
    elif not config.recompute_generator:
        yield Advice(
            f"{measured} The generator's graph is held meanwhile.",
            "Set recompute_generator=true.",
            _set(recompute_generator=True),
        )
    elif not config.decode_tiling:
        yield Advice(measured, "Set decode_tiling=true; it is approximate at seams.", _set(decode_tiling=True))


def _graph_memory(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    used, (worst, most, _) = _used(profile), _peaks(profile)
    if used is None or used < TIGHT or worst not in (ASSISTANT, GENERATOR, BACKWARD):
        return
    measured = f"{worst[0].upper()}{worst[1:]} sets the peak, {_gib(most)} ({used:.0%} of the memory is used)."
    if not config.gradient_checkpointing:
        yield Advice(measured, "Set gradient_checkpointing=true.", _set(gradient_checkpointing=True))
    elif config.batch_size % 2 == 0 and not config.noises_per_prompt:
        half = {"batch_size": config.batch_size // 2, "accumulation": 2 * config.accumulation}
        yield Advice(
            measured,
            f"Set {' and '.join(f'{name}={value}' for name, value in half.items())}: the same batch in smaller parts.",
            _set(**half),
        )
    elif profile.device_type == "cuda" and not config.activation_offload and config.compile != "graphs":
        yield Advice(
            measured,
            "Set activation_offload=true: activations wait in the host's memory, and the step takes longer.",
            _set(activation_offload=True),
        )


def _frozen_weights(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    frozen = profile.held.get("reference", 0) + profile.held.get("decoder", 0)
    if config.mode == "lora" and "generator" in profile.held:
        frozen += profile.held["generator"]
    if config.frozen_precision != "fp32" or config.precision == "fp32" or not profile.peak_memory:
        return
    if frozen / 2 >= LARGE_PART / 2 * profile.peak_memory:
        yield Advice(
            f"Frozen weights are float32 and take {_gib(frozen)} of {_gib(profile.peak_memory)}.",
            "Set frozen_precision=bf16, which halves them; passes compute in bfloat16 already.",
            _set(frozen_precision="bf16"),
        )


def _frozen_bits(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    """Last of all: what changes the weights is named where they alone are what is left to make smaller."""
    used, frozen = _used(profile), profile.held.get("reference", 0)
    if config.mode == "lora":
        frozen += profile.held.get("generator", 0)
    fewer = {"bf16": "int8", "fp16": "int8", "int8": "nf4"}.get(config.frozen_precision)
    if fewer is None or used is None or used < TIGHT or not config.gradient_checkpointing:
        return
    if frozen >= 2 * LARGE_PART * profile.peak_memory:
        yield Advice(
            f"Frozen weights take {_gib(frozen)} of {_gib(profile.peak_memory)}, and {used:.0%} of the memory is used.",
            f"If nothing else fits, set frozen_precision={fewer} (pip install 'dipp-toolkit[8bit]'): about half of it, "
            "at the price of rounded weights.",
            _set(frozen_precision=fewer),
        )


def _optimizer_memory(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    states, used = profile.held.get("optimiser states", 0), _used(profile)
    if profile.device_type != "cuda" or config.optimizer == "8bit" or used is None or used < TIGHT:
        return
    if states >= LARGE_PART * profile.peak_memory:
        yield Advice(
            f"Optimiser states take {_gib(states)} of {_gib(profile.peak_memory)}.",
            "Set optimizer=8bit (pip install bitsandbytes).",
            _set(optimizer="8bit"),
        )


def _fresh_samples(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    part = profile.part(SAMPLES)
    if part is not None and _steady(profile, part) >= FRESH and not config.reuse_samples:
        yield Advice(
            f"Samples for the assistant's updates take {part.share:.0%} of the step.",
            "Set reuse_samples=true: its last update learns from the generator's samples of the step before.",
            _set(reuse_samples=True),
        )


def _update_time(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    part = profile.part(UPDATES)
    if part is not None and _steady(profile, part) >= LARGE_PART and config.accumulation == 1:
        yield Advice(
            f"Clipping, optimisers and average take {part.share:.0%} of the step, whatever its batch.",
            f"Set batch_size={2 * config.batch_size}, or accumulation=2, and fewer steps.",
            _set(batch_size=2 * config.batch_size),
        )


def _reward_time(profile: Profile, config: TrainConfig) -> Iterator[Advice]:
    decoding = profile.part(DECODER)
    rewards = [part for part in profile.parts if part.name.startswith(REWARD)]
    learned = [part.name.removeprefix(f"{REWARD} ") for part in rewards]
    learned = [name for name in learned if name in config.rewards and name not in config.latent_rewards]
    together = sum(part.share for part in (*rewards, *([decoding] if decoding is not None else [])))
    steady = sum(_steady(profile, part) for part in (*rewards, *([decoding] if decoding is not None else [])))
    if learned and steady >= 2 * LARGE_PART:
        changes = {f"reward.{name}.latent": True for name in learned}
        yield Advice(
            f"Decoding and rewards take {together:.0%} of the step.",
            f"Set {' and '.join(f'{name}=true' for name in changes)}: most samples then need neither, as long as a "
            "direction learned on latents agrees with the true gradient. The report shows whether it does, and "
            "docs/guide/rewards.md what it costs in quality.",
            changes,
        )
    if decoding is not None and _steady(profile, decoding) >= 2 * LARGE_PART and config.decoder is None:
        yield Advice(
            f"Decoding takes {decoding.share:.0%} of the step.",
            "Name a tiny autoencoder of the same latents with decoder=FOLDER; its images are approximate.",
            {},
        )
    for part in rewards:
        if _steady(profile, part) >= 2 * LARGE_PART:
            yield Advice(
                f"The {part.name} takes {part.share:.0%} of the step.",
                "Score smaller images with reward_resolution, if the reward was trained on images of that size.",
                {},
            )


RULES: tuple[Rule, ...] = (
    _narrow_passes, _launches, _waits, _decoding_memory, _graph_memory, _frozen_weights, _optimizer_memory,
    _larger_batch, _needless_recomputation, _needless_pieces, _fresh_samples, _update_time, _reward_time,
    _frozen_bits,
)  # fmt: skip


def _steady(profile: Profile, part: Part) -> float:
    """The share of the step that a part has in three of four steps at least; 0 where too few were measured."""
    return part.share_low if profile.steps >= STEADY else 0.0


def _used(profile: Profile) -> float | None:
    """Share of the device's memory at the peak."""
    return profile.peak_memory / profile.device_memory if profile.device_memory else None


def _peaks(profile: Profile) -> tuple[str, int, int]:
    """The part whose memory is the peak, its bytes, and those of the next part that is not decoding or a reward."""
    by_part = {part.name: part.memory for part in profile.parts if part.memory}
    if not by_part:
        return "", 0, 0
    worst = max(by_part, key=lambda name: by_part[name])
    others = [memory for name, memory in by_part.items() if name != DECODER and not name.startswith(REWARD)]
    return worst, by_part[worst], max(others, default=0)


def _gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"
