"""What is named on the command line of `dipp bench`, and how it becomes a source of images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import RequestError
from ...models import generator_options
from ...models.files.saved_generators import DIFFUSERS, place_of, reference_beside
from ...models.loading import load_generator, load_reference
from ...models.published import check_guidance
from ...models.shared_components.pair import check_named, encode_for
from ...models.sized import decoder_beside
from ...models.text_encoders import prompt_encoder
from ...protocols import Reference
from ...registry import get_registry
from ...training.setup.name_checks import check_pipeline
from ...utils.assignments import read_yaml
from ...utils.imports import is_python_name
from ...utils.messages import quoted, shown, unknown_name
from ...utils.paths import is_there, user_path
from .sources import Source

SAMPLING = ("steps", "guidance", "reference")
OPTIONS = (*SAMPLING, *generator_options.OPTIONS)
STEPS, GUIDANCE = 50, 1.0
"""A reference's sampling where neither the command line nor its plugin says otherwise."""


@dataclass(frozen=True)
class BenchEntry:
    """A generator or reference under a label.

    Attributes:
        label: what its row is called.
        name: a registered name, `file.py:Name`, a pipeline folder, a run folder, `NAME@folder` or a hub id.
        options: any of `steps` and `guidance`, which sample it as a reference; `reference`, whose decoder and text
            encoders a generator without its own uses; and those of a generator as it is loaded, such as `weights`.
        about: settings that its row shows beside the options.
    """

    label: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run_settings(self) -> dict[str, Any]:
        """The settings of the run that made it, empty where it is neither a run folder nor the `final` of one."""
        place = place_of(self.name)
        if not is_there(place):
            return {}
        folder = user_path(place)
        path = (folder.parent if folder.name == "final" else folder) / "config.yaml"
        return read_yaml(path) if path.is_file() else {}

    @property
    def trained_steps(self) -> int:
        """How many steps its run trained it to take; 1 where it is of no run.

        Raises:
            RequestError: its settings say something that is not a number.
        """
        return int(_number(self.label, "generator_steps", self.run_settings.get("generator_steps") or 1))

    @property
    def is_reference(self) -> bool:
        """Whether it is sampled in many steps: a registered reference, or anything whose steps say so."""
        registry = get_registry()
        if self.generator_options.keys() - {generator_options.GUIDANCE}:
            return False
        if self.asked_steps(1) > 1:
            return self.trained_steps == 1
        return self.name in registry.entries["reference"] and self.name not in registry.entries["generator"]

    @property
    def generator_options(self) -> dict[str, Any]:
        """What its options ask of it as it is loaded; with any but `guidance_embedding` it is a generator.

        Raises:
            RequestError: a value is out of range.
        """
        given = {name: value for name, value in self.options.items() if name not in SAMPLING}
        return generator_options.parsed_options(given, f"'{shown(self.label)}'")

    def asked_steps(self, usual: int) -> int:
        """The steps that its options ask for; `usual` where they say none.

        Raises:
            RequestError: they say something that is not a whole number of at least 1.
        """
        steps = _number(self.label, "steps", self.options.get("steps", usual))
        if steps != int(steps):
            raise RequestError(f"'{self.label}' has {steps} as its steps; expected a whole number of at least 1.")
        return int(steps)

    def check(self) -> None:
        """Refuse what cannot be meant, before anything is loaded.

        Raises:
            RequestError: an option or the name is unknown.
        """
        for option in self.options:
            if option not in OPTIONS:
                raise RequestError(
                    f"'{self.label}' does not have this option. " + unknown_name("option", option, OPTIONS)
                )
        own, steps = self.trained_steps, self.asked_steps(self.trained_steps)
        _number(self.label, "guidance", self.options.get("guidance", 0), 0)
        if own > 1 and steps != own:
            raise RequestError(f"'{self.label}' was trained to take {own} steps; got steps={steps}. Leave steps out.")
        check_pipeline(self.name, "generator", "reference")

    def source(self, device: torch.device) -> Source:
        """Load it.

        Raises:
            RequestError: it cannot be used.
        """
        registry = get_registry()
        if self.is_reference:
            entry = registry.entries["reference"].get(self.name)
            recommended = entry.defaults if entry is not None else {}
            steps = self.asked_steps(int(recommended.get("reference_steps", STEPS)))
            usual = recommended.get("reference_guidance", recommended.get("guidance", GUIDANCE))
            guidance = _number(self.label, "guidance", self.options.get("guidance", usual), 0)
            check_guidance(self.name, guidance, "guidance")
            reference = self._reads_prompts(load_reference(self.name, **self.generator_options)).to(device)
            return Source(reference, None, steps, guidance)
        check_named(self.name, self.decoder, f"--set generator.{self.label}.reference={{}}")
        generator = load_generator(self.name, **self.generator_options)
        generator.network.to(device)
        decoder = decoder_beside(load_reference(self.decoder), generator)
        reference = self._reads_prompts(decoder).to(device)
        self.check_shapes(generator.latent_shape, reference.latent_shape)
        encode_for(generator, reference)
        return Source(reference, generator)

    def _reads_prompts(self, reference: Reference) -> Reference:
        """The reference, which cuts long prompts where its run did, or where its plugin recommends it."""
        encoder, registry = prompt_encoder(reference), get_registry()
        entries = [registry.entries[kind].get(self.name) for kind in ("generator", "reference")]
        recommended = [
            entry.defaults["long_prompts"] for entry in entries if entry and "long_prompts" in entry.defaults
        ]
        if encoder is not None and "cut" in (self.run_settings.get("long_prompts"), *recommended[:1]):
            encoder.set_long_prompts("cut")
        return reference

    def check_shapes(self, made: Sequence[int], decoded: Sequence[int]) -> None:
        """Refuse a decoder of other latents than the generator's.

        Raises:
            RequestError: the shapes differ.
        """
        if tuple(made) != tuple(decoded):
            raise RequestError(
                f"'{self.label}' makes latents of shape {tuple(made)} and its reference decodes {tuple(decoded)}. "
                f"Name its own with --set generator.{self.label}.reference=NAME."
            )

    @property
    def decoder(self) -> str:
        """The reference whose decoder and text encoders a generator uses.

        Raises:
            RequestError: its plugin names none, and nobody else does.
        """
        if "reference" in self.options:
            return str(self.options["reference"])
        reference = reference_beside(self.name)
        if reference is None:
            raise RequestError(
                f"Name the reference of '{self.label}' with --set generator.{self.label}.reference=NAME."
            )
        return reference


def _number(label: str, what: str, value: Any, least: float = 1) -> float:
    """An option that is a number.

    Raises:
        RequestError: it is not a number, or too small.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number < math.inf:
        raise RequestError(
            f"'{shown(label)}' has {quoted(value)} as its {what}; expected a number of at least {least:g}."
        )
    return number


def parse_entries(text: str, options: Mapping[str, Mapping[str, Any]]) -> list[BenchEntry]:
    """`"emoji-reference,fast=emoji-reference,runs/emoji-onestep-1"` as entries.

    Args:
        text: names, commas between them, each with a label of its own where one stands before an equals sign. A folder
            is called by its last part.
        options: by label.

    Raises:
        RequestError: nothing is named, two have one label, or options are given to a label that is not there.
    """
    entries: dict[str, BenchEntry] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        label, separator, name = part.partition("=")
        if not separator:
            name = part
            label = part if part in _registered() else _last_part(part)
        if not label or not name:
            raise RequestError(f"'{part}' is not a generator; expected NAME or LABEL=NAME.")
        if label in entries:
            raise RequestError(
                f"Two generators are called '{label}'; label them, as in best={entries[label].name},last={name}."
            )
        entries[label] = BenchEntry(label, name, dict(options.get(label, {})))
    if not entries:
        raise RequestError("No generator is named; expected some, as in --generators emoji-reference,emoji-onestep.")
    for label in options:
        if label not in entries:
            raise RequestError(f"--set generator.{label}... " + unknown_name("generator", label, entries))
    for entry in entries.values():
        entry.check()
    return list(entries.values())


def _last_part(name: str) -> str:
    """What a folder is called, or an object of Python."""
    last = place_of(name).removeprefix(DIFFUSERS).rstrip("/").split("/")[-1]
    return last.rpartition(":")[2] if is_python_name(last) else last


def _registered() -> Sequence[str]:
    registry = get_registry()
    return [*registry.entries["generator"], *registry.entries["reference"]]
