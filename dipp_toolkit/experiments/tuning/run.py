"""A tuning, top to bottom: the adapter on the reference, the generator's distillation, the images side by side.

Each stage's outputs stand whole or not at all, so the same command given again goes on where it was:

    OUT/tune.json            what the outputs depend on
    OUT/adapter-training/    checkpoints and losses of the adapter
    OUT/reference-adapter/   the adapter, for peft and diffusers
    OUT/reference/           the tuned reference: a diffusers pipeline with the adapter merged in
    OUT/run/                 the distillation, a run folder like any other; OUT/run/final is the tuned generator
    OUT/naive/               the generator's own network tuned by the denoising loss, where it was asked for
    OUT/report/              images of all of them side by side, and the judge's scores
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from ...config import TrainConfig, make_config
from ...diffusion.denoiser import Denoiser
from ...distributed import Processes
from ...errors import Interrupted, RequestError
from ...models import lora
from ...models.encoding import encode_images
from ...models.export import export_pipeline
from ...models.family import PipelineFamily
from ...models.generator_options import generator_options
from ...models.guidance_embedding import told_guidance
from ...models.loading import load_generator, load_reference
from ...models.lora import AdapterSettings
from ...models.reference import DiffusersReference, check_score
from ...prompts.conditions import Conditions, encode_prompts
from ...training.optim import apply_network_options
from ...training.run import train
from ...training.run_state.reserved_folder import own_folder
from ...training.setup.assembly import reference_options
from ...training.setup.resolve import settle_precision, with_recommended
from ...training.stepping import StopRequest
from ...utils.atomic import whole_folder, write_text
from ...utils.deterministic import deterministic_kernels
from ...utils.device import choose_device
from ...utils.disk_errors import AGAIN, explained
from ...utils.folder_lock import LOCK
from ...utils.json_files import read_json
from ...utils.json_forms import in_form
from ...utils.jsonl import MetricsFile
from ...utils.messages import shown
from ...utils.precision import PRECISIONS
from ...utils.reproducibility import seed_everything
from ...utils.setting_layers import over
from .adapter import AdapterPlan, AdapterTraining
from .beside import write_beside
from .listening import Listener
from .pictures import Pictures
from .settings import DISTILLATION, TERM, TuneSettings

RECORD, RUN, REFERENCE, ADAPTER, NAIVE = "tune.json", "run", "reference", "reference-adapter", "naive"
WORK, NAIVE_WORK, PROMPTS = "adapter-training", "naive-training", "prompts.txt"


@dataclass(frozen=True)
class TuneResult:
    """What a finished tuning leaves: its folder, and what `report/summary.json` holds."""

    folder: Path
    summary: dict[str, Any]


@dataclass
class Tuning:
    """A tuning under way.

    Attributes:
        settings: what is to be done.
        config: resolved settings of the distillation, without what the first stage makes.
        pictures: what is learned.
        listener: told of the progress.
        stop: notes signals.
    """

    settings: TuneSettings
    config: TrainConfig
    pictures: Pictures
    listener: Listener
    stop: StopRequest
    device: torch.device = field(init=False)
    _learned: tuple[Tensor, Conditions] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.device = choose_device(self.config.device)

    @property
    def out(self) -> Path:
        return self.settings.out

    def tune_reference(self) -> None:
        """The first stage: the adapter, and the reference with it merged in."""
        if (self.out / REFERENCE).is_dir() and (self.out / ADAPTER).is_dir():
            return
        reference = self._reference()
        latents, conditions = self._data(reference)
        reference.denoiser.frozen()
        settings = AdapterSettings(self.settings.adapter.rank, float(self.settings.adapter.rank))
        network = lora.adapted(reference.network, settings, self.config.seed)
        denoiser = replace(reference.denoiser, network=network)
        training = self._train(denoiser, reference.family, latents, conditions, "the adapter on the reference", WORK)
        with training.average.applied():
            with whole_folder(self.out / ADAPTER) as beside:
                lora.save_adapter(network, beside)
            merged = lora.merged(network)
            export_pipeline(
                reference.folder, self.out / REFERENCE, reference.family.network_name, merged, reference.scheduler,
                guidance_embedding=told_guidance(reference.family),
            )  # fmt: skip

    def tune_naively(self) -> None:
        """What stands beside: the same adapter by the same loss on the generator's own network."""
        if (self.out / NAIVE).is_dir():
            return
        from ...models.generator import DiffusersGenerator

        reference = self._reference()
        generator = load_generator(self.config.generator or "", **generator_options(self.config))
        if not isinstance(generator, DiffusersGenerator):
            raise RequestError("--naive needs a generator that is a diffusers pipeline; leave it out.")
        latents, conditions = self._data(reference)
        rank = self.settings.adapter.rank
        generator.adapt(AdapterSettings(rank, float(rank)), reference, self.config.seed)
        training = self._train(
            generator.denoiser,
            generator.family,
            latents,
            conditions,
            "the adapter on the generator, the naive way",
            NAIVE_WORK,
        )
        with training.average.applied(), whole_folder(self.out / NAIVE) as beside:
            generator.save_pretrained(beside)

    def _reference(self) -> DiffusersReference:
        """The base reference on the device.

        Raises:
            RequestError: it is no diffusers pipeline, or its network predicts no score.
        """
        reference = load_reference(self.config.reference or "", **reference_options(self.config))
        if not isinstance(reference, DiffusersReference):
            raise RequestError(
                f"The reference '{self.config.reference}' is no diffusers pipeline, whose autoencoder and network "
                "pictures could teach; name one with --reference."
            )
        check_score(reference.folder, reference.family)
        return reference.to(self.device)

    def _data(self, reference: DiffusersReference) -> tuple[Tensor, Conditions]:
        """The pictures' latents, and their captions with the empty one behind them, encoded once."""
        if self._learned is None:
            images, notices = self.pictures.read(reference.image_size)
            for notice in notices:
                self.listener.note(notice)
            latents = encode_images(reference, images)
            captions = list(self.pictures.captions)
            conditions, _ = encode_prompts(reference, self.config, [*captions, ""], captions[:1], self.device)
            self._learned = latents, conditions
        return self._learned

    def _train(
        self, denoiser: Denoiser, family: PipelineFamily, latents: Tensor, conditions: Conditions, what: str, work: str
    ) -> AdapterTraining:
        """Train an adapter to the end, from where it was left.

        Raises:
            Interrupted: a signal came; the training is saved.
            RunError: the loss is not finite.
        """
        asked = self.settings.adapter
        network: nn.Module = denoiser.network.to(self.device)
        apply_network_options(network, self.config.model_copy(update={"compile": "off"}), family)
        plan = AdapterPlan(
            asked.steps, asked.batch, asked.learning_rate, asked.caption_dropout,
            seed=self.config.seed, precision=PRECISIONS[self.config.precision],
        )  # fmt: skip
        training = AdapterTraining(denoiser, latents, conditions, plan)
        folder = self.out / work
        folder.mkdir(exist_ok=True)
        training.resume(folder)
        self.listener.begin(what, asked.steps - training.step)
        metrics = MetricsFile(folder / "metrics.jsonl", training.step)

        def told(step: int, loss: float) -> None:
            metrics.write({"step": step, "loss": loss})
            self.listener.advance(1)

        def stopped() -> None:
            if self.stop.signal is not None:
                raise Interrupted(
                    f"Interrupted by {self.stop.signal.name}. Update {training.step} of {what} is saved. {AGAIN}"
                )

        try:
            training.run(folder, asked.save_every, told, stopped)
        finally:
            metrics.close()
        denoiser.network.eval()
        return training

    def distil(self, listeners: Sequence[object]) -> dict[str, Any]:
        """The second stage: the generator, towards the tuned reference or by the difference to it."""
        folder = self.out / RUN
        done = folder / "summary.json"
        if done.is_file() and (folder / "final").is_dir():
            summary = read_json(done, then=FINISH_AGAIN)
            in_form(summary, _Finished, str(done), FINISH_AGAIN)
            return summary
        tuned = str(self.out / REFERENCE)
        given = {name: getattr(self.config, name) for name in self.config.model_fields_set}
        if self.settings.way == "difference":
            options = {"tuned": tuned, "strength": self.settings.strength}
            given |= {"term": TERM, "term_options": {TERM: options}}
        else:
            given |= {"reference": tuned}
        given |= {"out": folder, "resume": (folder / "config.yaml").is_file()}
        try:
            return train(make_config(given), listeners=listeners).summary
        except Interrupted as error:
            raise Interrupted(f"{str(error).partition(' Go on with')[0]} {AGAIN}") from error


FINISH_AGAIN = "Remove it; the same command finishes the training again."


class _Finished(BaseModel):
    """What is taken from the `summary.json` of the distillation."""

    steps: int
    warnings: list[str] | None = None


def tune(settings: TuneSettings, listener: Listener, listeners: Sequence[object] = ()) -> TuneResult:
    """Teach a generator a folder of pictures; the same call goes on with what was begun.

    Args:
        settings: what is to be done.
        listener: told of all but the distillation.
        listeners: of the distillation; see `dipp_toolkit.train`.

    Raises:
        RequestError: the pictures, the models or the folder cannot be used.
        RunError: a training failed.
        Interrupted: a signal ended it; what was done is saved.
    """
    settings.check()
    pictures = Pictures.find(settings.pictures, settings.captions, settings.caption)
    config = distillation_config(settings)
    processes = Processes.launched(choose_device(config.device))
    if not processes.alone:
        raise RequestError(
            "A tuning runs in one process. Start it without a launcher; its second stage alone can be launched as "
            f"dipp train --reference {shown(settings.out / REFERENCE)}."
        )
    for notice in pictures.notices:
        listener.note(notice)
    with explained(AGAIN), own_folder(settings.out, processes), StopRequest().noted() as stop:
        config, _ = settle_precision(config, choose_device(config.device), processes)
        _take_up(settings.out, settings.decides(pictures.digest(), config.reference or ""))
        config = _with_prompts(config, settings.out, pictures)
        tuning = Tuning(settings, config, pictures, listener, stop)
        with _at_work(tuning):
            tuning.tune_reference()
            if settings.naive:
                tuning.tune_naively()
        summary = tuning.distil(listeners)
        with _at_work(tuning):
            summary = write_beside(settings.out, tuning.config, settings.naive, summary, listener)
    return TuneResult(settings.out, summary)


@contextmanager
def _at_work(tuning: Tuning) -> Iterator[None]:
    """Kernels and random sources as in a run."""
    with deterministic_kernels(tuning.device, tuning.config.deterministic):
        seed_everything(tuning.config.seed)
        yield


def distillation_config(settings: TuneSettings) -> TrainConfig:
    """The second stage's settings with those that the generator recommends, before its reference is tuned.

    Raises:
        RequestError: the generator has no reference that is known, or a setting is invalid.
    """
    given = over(cast(Mapping[str, Any], DISTILLATION), dict(settings.train))
    config = with_recommended(make_config(given))
    if config.reference is None:
        raise RequestError(f"Name the reference of '{config.generator}' with --reference.")
    return config


def _with_prompts(config: TrainConfig, out: Path, pictures: Pictures) -> TrainConfig:
    """The prompts that the generator is trained on: those asked for or recommended, or else the captions."""
    if config.prompts is not None:
        return config
    path = out / PROMPTS
    if not path.is_file():
        write_text(path, "\n".join(dict.fromkeys(pictures.captions)) + "\n")
    return make_config({name: getattr(config, name) for name in config.model_fields_set} | {"prompts": str(path)})


def _take_up(out: Path, asked: dict[str, Any]) -> None:
    """Begin in a folder, or go on with what was begun there by the same request.

    Raises:
        RequestError: the folder holds something else, or a tuning of other pictures or settings.
    """
    record = out / RECORD
    others = [path.name for path in out.iterdir() if path.name not in (LOCK, RECORD, PROMPTS)]
    if record.is_file() and others:
        begun = read_json(record, then="Begin in another folder with --out.")
        changed = [name for name in {**begun, **asked} if begun.get(name) != asked.get(name)]
        if changed:
            differing = ", ".join(_as_begun(name, begun) for name in changed)
            raise RequestError(
                f"The tuning in {out} was begun with {differing}. Give it as it was, or begin another one with --out."
            )
        return
    if others:
        raise RequestError(f"The folder {out} is not empty and holds no tuning. Choose another folder with --out.")
    (out / PROMPTS).unlink(missing_ok=True)  # of a request that failed before it began
    write_text(record, json.dumps(asked, indent=2) + "\n")


def _as_begun(name: str, begun: Mapping[str, Any]) -> str:
    """How something was when a tuning was begun, in words."""
    if name == "pictures":
        return "other pictures or captions"
    return f"{name} {shown(str(begun[name]))}" if name in begun else f"no {name}"
