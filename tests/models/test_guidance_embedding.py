"""Guidance that is distilled into a network's input: a setting, told to every role, recorded, and equal to stock."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from dipp_cli.actions.generate import GenerateRequest, make_images
from dipp_cli.app import main
from dipp_toolkit import RequestError, TrainConfig, load_generator, load_reference
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.generator_options import generator_options, guidance_option
from dipp_toolkit.models.guidance_embedding import told_guidance
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.training.run import train
from dipp_toolkit.training.setup.assembly import assemble, reference_options
from dipp_toolkit.training.setup.resolve import resolve
from tiny import PROMPTS
from tiny_runs import BLUE, blue_settings

TOLD = 1.5


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_twin("FluxPipeline", tmp_path_factory.mktemp("dev") / "twin")


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1-schnell's kind, with dev's other parts, as they are published."""
    return write_twin("FluxPipeline", tmp_path_factory.mktemp("schnell") / "twin", guidance_embeds=False)


def stock_latents(folder: Path, steps: int, guidance: float) -> torch.Tensor:
    """What plain diffusers draws with this guidance."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = fixed_noise(len(PROMPTS), (16, 8, 8), 5)
    packed = pipeline._pack_latents(noise, *noise.shape)
    call = {**call_arguments(folder, steps), "guidance_scale": guidance}
    latents = pipeline(list(PROMPTS), latents=packed, output_type="latent", **call).images
    return pipeline._unpack_latents(latents, 16, 16, pipeline.vae_scale_factor)


@torch.no_grad()
def test_a_reference_and_a_generator_draw_what_stock_draws_with_the_value(dev: Path, tmp_path: Path) -> None:
    reference = load_reference(str(dev), guidance_embedding=TOLD)
    noise, condition = fixed_noise(len(PROMPTS), (16, 8, 8), 5), reference.encode(PROMPTS)
    drawn = reference.sample(condition, noise, 2, 1.0)
    torch.testing.assert_close(drawn, stock_latents(dev, 2, TOLD), rtol=0, atol=1e-5)
    usual = load_reference(str(dev)).sample(condition, noise, 2, 1.0)
    torch.testing.assert_close(usual, stock_latents(dev, 2, 3.5), rtol=0, atol=1e-5)
    assert (drawn - usual).abs().max() > 1e-4

    generator = load_generator(str(dev), guidance_embedding=TOLD)
    generator.save_pretrained(tmp_path / "final")
    assert call_arguments(tmp_path / "final", 1)["guidance_scale"] == TOLD
    ours = generator.generate(noise, condition)
    torch.testing.assert_close(ours, stock_latents(tmp_path / "final", 1, TOLD), rtol=0, atol=1e-5)
    again = load_generator(str(tmp_path / "final"))
    assert torch.equal(again.generate(noise, condition), ours), "the folder says what its network is told"
    other = load_generator(str(tmp_path / "final"), guidance_embedding=3.5)
    assert torch.equal(other.generate(noise, condition), load_generator(str(dev)).generate(noise, condition))


def test_plain_diffusers_says_nothing_of_the_record(
    dev: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_generator(str(dev), guidance_embedding=TOLD).save_pretrained(tmp_path / "final")
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    DiffusionPipeline.from_pretrained(tmp_path / "final")
    assert not [message for message in caplog.messages if "guidance" in message]


def test_every_role_of_a_run_is_told_it_and_it_stays_with_what_is_exported(dev: Path, tmp_path: Path) -> None:
    settings = blue_settings(tmp_path, BLUE, reference=str(dev), guidance=1.0, steps=1, reference_steps=1)
    config = resolve(TrainConfig(**settings, guidance_embedding=TOLD, out=tmp_path / "run"))
    parts = assemble(config)
    reference, generator = parts.reference, parts.generator
    assert isinstance(reference, DiffusersReference) and isinstance(generator, DiffusersGenerator)
    told = [
        forward.__self__.embedded_guidance  # type: ignore[attr-defined]
        for forward in (
            reference.denoiser.forward, generator.denoiser.forward, parts.assistant.denoiser.forward  # type: ignore[attr-defined]
        )
    ]  # fmt: skip
    assert told == [TOLD] * 3
    first = train(config)
    assert f"guidance_scale={TOLD}" in (first.folder / "final" / "README.md").read_text()
    with pytest.raises(RequestError, match=r"guidance_embedding was 1\.5 and is 2"):
        train(TrainConfig(**settings, guidance_embedding=2.0, out=tmp_path / "run", resume=True).replace(steps=2))
    second = resolve(TrainConfig(generator=str(first.folder), out=tmp_path / "second"))
    assert second.guidance_embedding == TOLD, "what trains on from it is told the same"
    copied = resolve(
        TrainConfig(generator=str(first.folder / "final"), reference=str(dev), prompts=settings["prompts"])
    )
    assert copied.guidance_embedding == TOLD


def test_of_two_networks_the_one_that_takes_guidance_is_told_it(dev: Path, schnell: Path) -> None:
    config = TrainConfig(generator=str(schnell), reference=str(dev), guidance_embedding=TOLD)
    assert guidance_option(config, "reference") == {"guidance_embedding": TOLD}
    assert generator_options(config) == {} and reference_options(config) == {"guidance_embedding": TOLD}
    config = TrainConfig(generator=str(dev), reference=str(schnell), guidance_embedding=TOLD)
    assert generator_options(config) == {"guidance_embedding": TOLD} and reference_options(config) == {}
    published = TrainConfig(generator="flux-schnell", reference="flux", guidance_embedding=TOLD)
    assert generator_options(published) == {} and reference_options(published) == {"guidance_embedding": TOLD}
    own = TrainConfig(generator="mine.py:Mine", reference="flux", guidance_embedding=TOLD)
    assert generator_options(own) == {} and reference_options(own) == {"guidance_embedding": TOLD}
    assert told_guidance(family_of(schnell)) is None
    assert call_arguments(schnell, 1)["guidance_scale"] == 1.0


def test_a_network_that_takes_none_is_a_sentence(
    schnell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for load in (load_generator, load_reference):
        with pytest.raises(RequestError, match=r"takes no guidance as an input.*Leave guidance_embedding out"):
            load(str(schnell), guidance_embedding=2.0)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    command = ["distill", "--reference", str(schnell), "--prompts", str(tmp_path / "prompts.txt"), "--device", "cpu"]
    for more in ("--dry-run", "--json"):
        words = [*command, more, "--out", str(tmp_path / "run"), "--set", "guidance_embedding=2"]
        assert main(words) == 2
        assert "takes no guidance as an input, so guidance_embedding=2 has no effect" in capsys.readouterr().err
    assert main([*command, "--dry-run", "--set", "guidance_embedding=-1"]) == 2
    assert "guidance_embedding cannot be" in capsys.readouterr().err


def test_a_record_that_is_no_number_is_a_sentence(dev: Path, tmp_path: Path) -> None:
    load_generator(str(dev)).save_pretrained(tmp_path / "final")
    index = json.loads((tmp_path / "final" / "model_index.json").read_text())
    assert index["_guidance_embedding"] == 3.5
    for wrong in ("much", True, -1, float("inf")):
        (tmp_path / "final" / "model_index.json").write_text(json.dumps(index | {"_guidance_embedding": wrong}))
        with pytest.raises(RequestError, match=r"_guidance_embedding=.*expected a number of at least 0"):
            load_generator(str(tmp_path / "final"))


def test_generate_and_a_bench_take_it(dev: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {"prompt": PROMPTS[:1], "seed": 5, "device": "cpu", "steps": 2}
    _, usual, _ = make_images(GenerateRequest(reference=str(dev), **request))
    _, drawn, settings = make_images(
        GenerateRequest(reference=str(dev), options={"guidance_embedding": TOLD}, **request)
    )
    assert settings["guidance_embedding"] == TOLD and (drawn - usual).abs().max() > 0
    prints = set()
    for kind in ({}, {"steps": 2}):  # a generator, and a reference in two steps
        for value in (None, 3.5, TOLD):
            options = {**kind, **({} if value is None else {"guidance_embedding": value})}
            entry = BenchEntry("mine", str(dev), options)
            entry.check()
            assert entry.is_reference == bool(kind)
            prints.add(entry.source(torch.device("cpu")).fingerprint())
    assert len(prints) == 4, "what a network is told by itself makes the same images as being told it"
