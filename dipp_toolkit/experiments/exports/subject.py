"""What is exported: a run's generator, and what it was trained from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...evaluation.comparison import INDEX as COMPARISON
from ...models.export import ADAPTER
from ...models.family import PipelineFamily
from ...models.files.download_lists import INDEX
from ...models.files.folders import resolve_folder
from ...models.files.safety import stock_pipeline
from ...models.generator import DiffusersGenerator
from ...models.generator_options import generator_options
from ...models.loading import load_generator, load_reference
from ...models.reference import DiffusersReference
from ...models.sizes import in_pixels
from ...training.run_state.run_folder import RunFolder
from ...utils.json_files import read_json
from ...utils.messages import shown
from ...utils.paths import user_path

PROMPT = "a photo of a red apple"
"""What is drawn where a folder says no prompt."""


@dataclass(frozen=True)
class ExportSubject:
    """A generator's folder, looked at.

    Attributes:
        named: what the user named: a run, or a pipeline's folder.
        folder: the generator's pipeline.
        generator: of this folder.
        base: what it was trained from, as the user said; None for what the run's settings say.
    """

    named: Path
    folder: Path
    generator: DiffusersGenerator
    base: str | None = None

    @classmethod
    def open(cls, name: str, base: str | None = None) -> ExportSubject:
        """A run's folder, or that of a pipeline.

        Raises:
            RequestError: there is none, or its generator is not a diffusers pipeline.
        """
        folder = resolve_folder(name)
        generator = load_generator(str(folder))
        if not isinstance(generator, DiffusersGenerator):
            raise RequestError(f"{shown(name)} is not a diffusers pipeline, so that no other program knows its layout.")
        return cls(user_path(name), folder, generator, base)

    @property
    def family(self) -> PipelineFamily:
        return self.generator.family

    @property
    def component(self) -> str:
        """The network's name in the pipeline."""
        return self.generator.family.network_name

    @property
    def pipeline_class(self) -> Any:
        """The diffusers class, or None."""
        return stock_pipeline(read_json(self.folder / INDEX))

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter that was trained; None of a generator that was trained in full."""
        return self.folder / ADAPTER if (self.folder / ADAPTER).is_dir() else None

    @property
    def prompt(self) -> str:
        """The first prompt that the run was compared on."""
        path = RunFolder(self.named).comparison / COMPARISON
        prompts = read_json(path).get("prompts") if path.is_file() else None
        return str(prompts[0]) if isinstance(prompts, list) and prompts else PROMPT

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        height, width = self.generator.latent_shape[1:]
        return in_pixels(self.folder, self.family, [(height, width)])[0]

    @cached_property
    def start(self) -> Path:
        """The folder of the weights that the training began from.

        Raises:
            RequestError: nobody says which they are, or they are not here.
        """
        if self.base is not None:
            return _weights(load_generator(self.base), self.base)
        run = RunFolder(self.named)
        if not run.config.is_file():
            raise RequestError(
                f"{self.named} is not a run's folder, so that nothing says what its generator was trained from. Name "
                "that with --base NAME, a registered name or a pipeline's folder."
            )
        config = run.saved_config()
        try:
            if config.generator is None:
                reference = load_reference(str(config.reference))
                return _weights(reference, str(config.reference))
            return _weights(load_generator(config.generator, **generator_options(config)), config.generator)
        except RequestError as error:
            raise RequestError(
                f"The weights that {self.named} was trained from are needed, and cannot be loaded: {error} Where they "
                "are elsewhere by now, name them with --base."
            ) from error


def _weights(loaded: Any, name: str) -> Path:
    """The folder of a network's weights.

    Raises:
        RequestError: it is not a diffusers pipeline's.
    """
    if isinstance(loaded, DiffusersGenerator):
        return loaded.weights
    if isinstance(loaded, DiffusersReference):
        return loaded.network_folder
    raise RequestError(f"'{shown(name)}' is not a diffusers pipeline, which the weights before the training were in.")
