"""Twins of the published generators: each repository written as its authors laid it out, with tiny random networks.

File names, key names, scheduler classes and configurations are the published ones, from the repositories' listings and
model cards and from public copies of their configurations; the weights are random, and a thousand times smaller.
Weights are rounded to half precision first, so that a repository's fp16 files are the same model as its plain ones.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.published_world import stock_calls as stock
from benchmarks.published_world.hub_cache import HubCache
from benchmarks.published_world.lora_layouts import (
    random_lora,
    write_diffusers,
    write_kohya,
    write_peft,
    write_plain,
    write_videox,
)
from benchmarks.published_world.weight_layouts import (
    add_half,
    round_to_half,
    shard,
    state_of,
    write_pickle,
    write_single,
)
from dipp_toolkit.models.published import PublishedGenerator, PublishedPipeline, PublishedReference
from dipp_toolkit.models.start_weights.source import parse_source
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.registry import get_registry

TWINS: dict[str, dict[str, Any]] = {
    "flux-schnell": {"guidance_embeds": False, "dynamic_shifting": False},
    "sd35-medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0,)},
    "sd35-large-turbo": {"qk_norm": "rms_norm"},
    "sana-1.5": {"qk_norm": True},
    "sana-1.5-4.8b": {"qk_norm": True},
    "sana-sprint-teacher": {"qk_norm": True, "timestep_scale": 0.001},
    "sana-sprint-teacher-0.6b": {"qk_norm": True, "timestep_scale": 0.001},
}
"""What the networks of these configurations have that others of their class do not."""

OTHER_SIZE = {"sdxl-turbo": Fraction(1, 2), "lcm-dreamshaper": Fraction(3, 2)}
"""Generators of images so many times as wide as their reference's pipeline draws by itself."""

Call = Callable[[Any, Tensor], Tensor]
"""The published call of a stock pipeline, from noise to an image."""


@dataclass(frozen=True)
class Layout:
    """A published name in one of the formats that its weights are, or could be, published in.

    Attributes:
        name: what people type.
        format: of its files, in a few words.
        write: writes its repositories into a hub cache, and returns what makes the stock pipeline of them.
        call: what is then done with it, as its authors' page shows.
        options: settings that bring further weights, as somebody would give them with the name.
        differs: what the published call does besides, which is taken out of the comparison.
        kind: of the name. A reference is sampled in a few steps, and distilled into a generator.
    """

    name: str
    format: str
    write: Callable[[HubCache, Any], stock.Load]
    call: Call
    options: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""
    kind: Literal["generator", "reference"] = "generator"


def model_of(kind: str, name: str) -> Any:
    """The record of a published name."""
    model = get_registry().find(kind, name).factory
    assert isinstance(model, PublishedPipeline), name
    return model


def write_reference(cache: HubCache, name: str) -> Path:
    """The repository of a published reference: plain files, and their fp16 variants beside them."""
    model: PublishedReference = model_of("reference", name)
    folder = cache.snapshot(model.pipeline)
    if not (folder / "model_index.json").is_file():
        _write_pipeline(folder, model, seed=0)
        add_half(folder, alone=False)
    return folder


def _write_pipeline(folder: Path, model: PublishedPipeline, seed: int) -> None:
    """A twin with the published index, class names and scheduler, whose weights half precision holds."""
    index = json.loads((model.configs / "model_index.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        twin = write_twin(index["_class_name"], Path(scratch) / "twin", seed=seed, **TWINS.get(model.configs.name, {}))
        (twin / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        network = _network_folder(twin) / "config.json"
        named = json.loads((model.configs / network.relative_to(twin)).read_text(encoding="utf-8"))
        config = json.loads(network.read_text(encoding="utf-8")) | {"_class_name": named["_class_name"]}
        network.write_text(json.dumps(config, indent=2), encoding="utf-8")
        shutil.copytree(model.configs / "scheduler", twin / "scheduler", dirs_exist_ok=True)
        if model.name in OTHER_SIZE:
            _resize(next(twin.glob("unet/config.json")), OTHER_SIZE[model.name])
        round_to_half(twin)
        shutil.copytree(twin, folder, dirs_exist_ok=True)


def _resize(path: Path, times: Fraction) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "sample_size": int(config["sample_size"] * times)}, indent=2), "utf-8")


def _network_folder(folder: Path) -> Path:
    return next(folder / name for name in ("unet", "transformer") if (folder / name).is_dir())


def write_whole_pipeline(cache: HubCache, model: PublishedGenerator) -> Path:
    """A generator's own pipeline: another network and scheduler, and its reference's text encoders and autoencoder."""
    base = write_reference(cache, model.reference)
    folder = cache.snapshot(model.pipeline)
    if folder == base:
        return folder
    _write_pipeline(folder, model, seed=1)
    parts = [path for path in base.iterdir() if path.is_dir() and path.name != "scheduler"]
    for path in parts:
        if path != _network_folder(base):
            shutil.rmtree(folder / path.name)
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("*fp16*"))
    return folder


def plain_and_half(cache: HubCache, model: PublishedGenerator) -> stock.Load:
    """Plain files and fp16 variants side by side."""
    folder = write_whole_pipeline(cache, model)
    if not list(folder.glob("*/*.fp16.*")):
        add_half(folder, alone=False)
    return lambda: stock.pipeline_at(folder)


def reference_folder(cache: HubCache, model: PublishedReference) -> stock.Load:
    """A reference's plain files and fp16 variants side by side."""
    folder = write_reference(cache, model.name)
    return lambda: stock.pipeline_at(folder)


def network_alone(cache: HubCache, model: PublishedReference) -> stock.Load:
    """A network of another size with its configuration, over the pipeline it is put into."""
    assert model.network is not None
    folder = cache.snapshot(model.pipeline)
    _write_pipeline(folder, model, seed=0)
    repository, _, inside = model.network.partition(":")
    place = cache.snapshot(repository) / inside
    with tempfile.TemporaryDirectory() as scratch:
        _write_pipeline(Path(scratch) / "twin", model, seed=1)
        shutil.copytree(_network_folder(Path(scratch) / "twin"), place, dirs_exist_ok=True)
    _resize(place / "config.json", Fraction(1, 2))

    def load() -> Any:
        import diffusers

        kind = getattr(diffusers, json.loads((place / "config.json").read_text(encoding="utf-8"))["_class_name"])
        return stock.pipeline_at(folder, **{place.name: kind.from_pretrained(place)})

    return load


def half_alone(cache: HubCache, model: PublishedGenerator) -> stock.Load:
    """fp16 variants and nothing else, as the Diff-Instruct family is published."""
    folder = write_whole_pipeline(cache, model)
    add_half(folder, alone=True)
    return lambda: stock.pipeline_at(folder, variant="fp16")


def half_shards(cache: HubCache, model: PublishedGenerator) -> stock.Load:
    """fp16 variants in shards and nothing else."""
    folder = write_whole_pipeline(cache, model)
    add_half(folder, alone=True, shards=2)
    return lambda: stock.pipeline_at(folder, variant="fp16")


def shards(cache: HubCache, model: PublishedGenerator) -> stock.Load:
    """Plain files, the network and the largest text encoder in shards, the latter's fp16 shards beside them."""
    folder = write_whole_pipeline(cache, model)
    encoders = ("text_encoder_3", "text_encoder_2", "text_encoder")
    big = next(folder / name for name in encoders if (folder / name).is_dir())
    if not list(big.glob("*fp16*")):
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(big, Path(scratch) / big.name)
            add_half(Path(scratch), alone=True, shards=2)
            shutil.copytree(Path(scratch) / big.name, big, dirs_exist_ok=True)
    for component in (big, _network_folder(folder)):
        if not list(component.glob("*.index.json")):
            shard(component, 2)
    return lambda: stock.pipeline_at(folder)


def encoder_in_shards(cache: HubCache, model: PublishedPipeline) -> stock.Load:
    """Plain files alone, the text encoder's in shards."""
    generator = isinstance(model, PublishedGenerator)
    folder = write_whole_pipeline(cache, model) if generator else write_reference(cache, model.name)
    for half in folder.glob("*/*.fp16.*"):
        half.unlink()
    if not list(folder.glob("text_encoder/*.index.json")):
        shard(folder / "text_encoder", 2)
    return lambda: stock.pipeline_at(folder)


def single_file(cache: HubCache, model: PublishedGenerator) -> stock.Load:
    """The network's file alone, over the pipeline it is made for: `.safetensors`, or a `.bin` of half precision."""
    assert model.weights is not None
    base = write_reference(cache, model.reference)
    with tempfile.TemporaryDirectory() as scratch:
        _write_pipeline(Path(scratch) / "twin", model, seed=1)
        state = state_of(_network_folder(Path(scratch) / "twin"))
    repository, _, inside = model.weights.partition(":")
    path = cache.snapshot(repository) / inside
    (write_pickle if path.suffix == ".bin" else write_single)(state, path)
    config = path.with_name("config.json")
    if "/" in inside:  # a component's folder has its configuration
        shutil.copy(_network_folder(base) / "config.json", config)

    def load() -> Any:
        pipeline = stock.pipeline_at(base)
        network = getattr(pipeline, _network_folder(base).name)
        if path.suffix == ".bin":
            import torch

            loaded = {name: tensor.float() for name, tensor in torch.load(path, weights_only=True).items()}
        else:
            loaded = load_file(path)
        network.load_state_dict(loaded)
        return pipeline

    return load


def lora_file(write: Callable[..., None]) -> Callable[[HubCache, PublishedGenerator], stock.Load]:
    """A LoRA file over the pipeline that it is made for.

    Args:
        write: the file, in one program's keys.
    """

    def layout(cache: HubCache, model: PublishedGenerator) -> stock.Load:
        (address,) = model.lora
        source = parse_source(address, scaled=True)
        base = write_reference(cache, model.reference)
        path = _lora_at(cache, source.text, base, write)
        return lambda: stock.with_lora(stock.pipeline_at(base), path, source.scale)

    return layout


def lora_over(write: Callable[..., None], scale: float) -> Callable[[HubCache, PublishedGenerator], stock.Load]:
    """A LoRA that somebody gives with the name of a generator that is a whole pipeline, with a scale."""

    def layout(cache: HubCache, model: PublishedGenerator) -> stock.Load:
        load = plain_and_half(cache, model)
        path = _lora_at(cache, EXTRA, cache.snapshot(model.pipeline), write)
        return lambda: stock.with_lora(load(), path, scale)

    return layout


def _lora_at(cache: HubCache, address: str, pipeline: Path, write: Callable[..., None]) -> Path:
    repository, _, inside = address.partition(":")
    path = cache.snapshot(repository) / inside
    component = _network_folder(pipeline)
    write(random_lora(state_of(component), RANK), path, component.name)
    return path


EXTRA = "somebody/a-style:style.safetensors"
"""A LoRA of no published name."""
RANK = 4
LCM_399: Call = lambda pipeline, noise: stock.lcm(pipeline, noise, 399)  # noqa: E731
LCM_800: Call = lambda pipeline, noise: stock.lcm(pipeline, noise, 800)  # noqa: E731
FAMILY = ("diff-instruct-sdxl", "sim-sdxl", "dipp-sdxl", "distar-sdxl", "distar-sdxl-short")
LAYOUTS: tuple[Layout, ...] = (
    *(Layout(name, "folder, fp16 alone", half_alone, LCM_399) for name in FAMILY),
    Layout("dipp-sdxl", "folder, fp16 shards alone", half_shards, LCM_399),
    Layout("sdxl-dmd2", "fp16 .bin over the base", single_file, LCM_399),
    Layout("hyper-sdxl", "UNet .safetensors over the base", single_file, LCM_800),
    Layout("sdxl-lightning", "UNet .safetensors over the base", single_file, stock.lightning),
    *(
        Layout(f"sdxl-lightning-{steps}", "UNet .safetensors over the base", single_file, stock.lightning_in(steps))
        for steps in (2, 4, 8)
    ),
    Layout("pixart-dmd", "transformer .bin over the base", single_file, stock.pixart_dmd),
    Layout("hyper-sd15", "LoRA, kohya's keys", lora_file(write_kohya), stock.tcd, differs=stock.TCD_DIFFERS),
    Layout("hyper-sd15", "LoRA, diffusers' keys", lora_file(write_diffusers), stock.tcd, differs=stock.TCD_DIFFERS),
    Layout("hyper-sd15", "LoRA, peft's keys", lora_file(write_peft), stock.tcd, differs=stock.TCD_DIFFERS),
    Layout(
        "sd-turbo",
        "with a LoRA of diffusers' keys at 0.125",
        lora_over(write_diffusers, 0.125),
        stock.own_scheduler,
        {"lora": f"{EXTRA}=0.125"},
    ),
    Layout("sdxl-turbo", "folder, plain and fp16", plain_and_half, stock.own_scheduler),
    Layout("lcm-dreamshaper", "folder, plain and fp16", plain_and_half, stock.latent_consistency),
    Layout("lcm-lora-sd15", "LoRA, kohya's keys", lora_file(write_kohya), stock.lcm_lora),
    Layout("lcm-lora-sdxl", "LoRA, kohya's keys", lora_file(write_kohya), stock.lcm_lora),
    Layout("sd-turbo", "folder, plain and fp16", plain_and_half, stock.own_scheduler),
    Layout("flux-schnell", "folder, shards", shards, stock.schnell),
    Layout("chroma-flash", "folder, shards", shards, stock.chroma_flash),
    *(
        Layout(name, "folder, text encoder in shards", encoder_in_shards, stock.klein)
        for name in ("flux2-klein", "flux2-klein-9b")
    ),
    Layout("sd35-medium", "folder, plain and fp16, T5 in shards", shards, stock.own_scheduler),
    Layout("sd35-large-turbo", "folder, shards", shards, stock.own_scheduler),
    Layout("z-image-turbo", "folder, shards", shards, stock.z_image),
    *(
        Layout(name, "folder, plain and fp16", plain_and_half, stock.sana_sprint)
        for name in ("sana-sprint", "sana-sprint-0.6b")
    ),
    *(
        Layout(name, "LoRA, VideoX-Fun's keys", lora_file(write_videox), call)
        for name, call in (("z-image-fun-distill", stock.z_image), ("z-image-fun-distill-4", stock.z_image_4))
    ),
    *(
        Layout(name, "LoRA, down and up by layer", lora_file(write_plain), call)
        for name, call in (
            ("qwen-image-lightning", stock.qwen_image_lightning),
            ("qwen-image-lightning-8", stock.qwen_image_lightning_8),
        )
    ),
    Layout("pixart-sigma-512", "reference: transformer alone", network_alone, stock.pixart_sampled, kind="reference"),
    *(
        Layout(name, "reference: folder, plain and fp16", reference_folder, call, kind="reference")
        for name, call in (
            ("sd15", stock.sampled),
            ("sd21", stock.sampled),
            ("sdxl", stock.sampled),
            ("sdxl-512", stock.other_size),
            ("dreamshaper-768", stock.other_size),
            ("pixart-alpha", stock.pixart_sampled),
            ("pixart-sigma", stock.pixart_sampled),
            ("hunyuan-dit", stock.hunyuan_sampled),
            ("hunyuan-dit-distilled", stock.hunyuan_sampled),
            ("sd3", stock.sampled),
            ("sd35-medium", stock.sampled),
            ("flux", stock.flux_sampled),
            ("z-image", stock.z_image_sampled),
            ("z-image-turbo-reference", stock.z_image_turbo_sampled),
            ("lumina2", stock.sampled),
            ("qwen-image", stock.qwen_image_sampled),
            ("sana", stock.sana_sampled),
            ("sana-512", stock.sana_sampled),
            ("sana-0.6b", stock.sana_sampled),
            ("sana-0.6b-512", stock.sana_sampled),
            ("sana-1.5", stock.sana_sampled),
            ("sana-1.5-4.8b", stock.sana_sampled),
            ("sana-sprint-teacher", stock.sana_sampled),
            ("sana-sprint-teacher-0.6b", stock.sana_sampled),
        )
    ),
    *(
        Layout(name, "reference: folder, text encoder in shards", encoder_in_shards, call, kind="reference")
        for name, call in (
            ("flux2-klein-base-4b", stock.klein_sampled),
            ("flux2-klein-base-9b", stock.klein_sampled),
            ("flux2", stock.flux_2_sampled),
            ("chroma", stock.chroma_sampled),
            ("chroma-base", stock.chroma_sampled),
        )
    ),
)
