"""Generators of several steps in runs: what is exported, loaded, resumed, generated and benchmarked."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import RequestError, TrainConfig, load_generator, load_reference
from dipp_toolkit.errors import Interrupted
from dipp_toolkit.experiments.bench.entries import BenchEntry
from dipp_toolkit.models.few_steps import noises_of
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.training.run import RunResult, train
from dipp_toolkit.training.setup.assembly import assemble
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.step_settings import Stepping
from forked import python
from tiny import PROMPTS
from tiny_runs import BLUE, StopAt, assert_same_bits, blue_settings, metrics

WAYS = pytest.mark.parametrize("supervise", ["last", "every"])
DRAWS = ("diffusers.schedulers.scheduling_lcm", "diffusers.schedulers.scheduling_flow_match_lcm")

# What somebody without this toolkit runs, the noises that the scheduler would draw given: the toolkit must not even be
# importable.
PLAIN = """
import sys
sys.modules["dipp_toolkit"] = None
import torch
import diffusers.schedulers.scheduling_lcm as scheduling
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
folder, given, out, *prompts = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder)
tensors = load_file(given)
between = iter(tensors["between"])
scheduling.randn_tensor = lambda *a, **k: next(between)
images = pipeline(
    prompts, latents=tensors["noise"], num_inference_steps=4, guidance_scale=1.0, output_type="pt",
    use_resolution_binning=False,
).images
save_file({"images": images.contiguous()}, out)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run of four steps on a tiny pipeline, with a reward from a file."""
    folder = tmp_path_factory.mktemp("world")
    more = {"reference_steps": 2, "guidance": 2.0, "sample_every": 100, "generator_steps": 4}
    return blue_settings(folder, BLUE, **more)


Run = Callable[..., RunResult]


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    def start(name: str, listeners: tuple[object, ...] = (), **settings: Any) -> RunResult:
        return train(TrainConfig(**(world | {"out": tmp_path / name} | settings)), listeners=listeners)

    return start


@pytest.mark.first_case
@WAYS
@pytest.mark.parametrize(("mode", "step_noise"), [("full", "fresh"), ("lora", "fresh"), ("full", "none")])
def test_a_stopped_run_goes_on_to_the_same_bits(run: Run, supervise: str, mode: str, step_noise: str) -> None:
    settings: dict[str, Any] = {"supervise": supervise, "mode": mode, "lora_rank": 4, "balance": "normalised"}
    settings["step_noise"] = step_noise
    whole = run("whole", **settings)
    with pytest.raises(Interrupted):
        run("parts", listeners=(StopAt(4, signal.SIGINT),), **settings)
    parts = run("parts", resume=True, **settings)
    assert_same_bits(whole.folder, parts.folder, 6)
    row = metrics(whole.folder)[-1]
    assert ("step_4/integral_kl" in row) == (supervise == "every")
    assert "step_5/integral_kl" not in row


@pytest.mark.first_case
@WAYS
def test_recomputing_changes_no_gradient(run: Run, supervise: str) -> None:
    held, recomputed = (
        run(name, supervise=supervise, recompute_generator=name == "recomputed", precision="fp32")
        for name in ("held", "recomputed")
    )
    first, second = metrics(held.folder), metrics(recomputed.folder)
    assert first[-1].keys() == second[-1].keys()
    for a, b in zip(first, second, strict=True):
        assert list(a.values()) == pytest.approx(list(b.values()), rel=1e-3, abs=1e-5)


def test_other_settings_cannot_be_resumed(run: Run) -> None:
    run("run", steps=2)
    with pytest.raises(RequestError, match="generator_steps was 4 and is 2"):
        run("run", steps=4, resume=True, generator_steps=2)
    with pytest.raises(RequestError, match="supervise was last and is every"):
        run("run", steps=4, resume=True, supervise="every")


def test_plain_diffusers_makes_the_image_of_dipp_generate(run: Run, world: dict[str, Any], tmp_path: Path) -> None:
    final = run("run", supervise="every", mode="lora", lora_rank=4).folder / "final"
    scheduler = json.loads((final / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["original_inference_steps"]) == ("LCMScheduler", 4)
    assert "4 steps" in (final.parent / "report.html").read_text()
    card = (final / "README.md").read_text()
    assert "4-step text-to-image" in card and "num_inference_steps=4" in card and "4 network evaluations" in card
    generator, reference = load_generator(str(final)), load_reference(world["reference"])
    noise = fixed_noise(len(PROMPTS), generator.latent_shape, 5)
    with torch.no_grad():
        ours = reference.decode(generator.generate(noise, reference.encode(PROMPTS)))
    given = tmp_path / "given.safetensors"
    save_file({"noise": noise, "between": torch.stack(noises_of(noise, 3))}, given)
    plain = python(PLAIN, final, given, tmp_path / "plain.safetensors", *PROMPTS)
    assert plain.wait() == 0, plain.stderr[-3000:]
    theirs = load_file(tmp_path / "plain.safetensors")["images"]
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours[0] - ours[1]).abs().max() > 1e-3


def stock_latents(
    folder: Path, noise: Tensor, between: list[Tensor], steps: int, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """What the stock pipeline makes of a first noise and the noises after it."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    packed = "Flux" in type(pipeline).__name__
    if packed:
        noise, *between = (pipeline._pack_latents(item, *item.shape) for item in (noise, *between))
    # The flow scheduler draws after its last step as well, and multiplies it by 0.
    given = iter([*between, torch.zeros_like(noise)])
    for draw in DRAWS:
        monkeypatch.setattr(f"{draw}.randn_tensor", lambda *_, **__: next(given))
    call = call_arguments(folder, steps)
    latents: Tensor = pipeline(list(PROMPTS), latents=noise, output_type="latent", **call).images
    return pipeline._unpack_latents(latents, 16, 16, pipeline.vae_scale_factor) if packed else latents


@pytest.mark.parametrize(
    ("name", "steps", "readout", "options", "times"),
    [
        ("PixArtAlphaPipeline", 3, 1.0, {}, "even"),
        ("PixArtAlphaPipeline", 3, 1.0, {}, (900.0, 333.0, 50.0)),
        ("StableDiffusionPipeline", 4, 0.625, {"prediction_type": "epsilon"}, "even"),
        ("StableDiffusionPipeline", 8, 1.0, {"prediction_type": "v_prediction"}, "even"),
        ("StableDiffusionXLPipeline", 2, 399 / 999, {}, "even"),
        ("StableDiffusion3Pipeline", 4, 1.0, {}, "even"),
        ("StableDiffusion3Pipeline", 3, 1.0, {}, "stock"),
        ("FluxPipeline", 4, 1.0, {}, "even"),
        ("FluxPipeline", 4, 1.0, {}, (1.0, 0.9, 0.75, 0.5)),
        ("FluxPipeline", 2, 1.0, {"dynamic_shifting": False, "guidance_embeds": False}, "even"),
    ],
)
def test_every_stock_pipeline_makes_the_generators_latents(
    name: str, steps: int, readout: float, options: dict[str, Any], times: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = write_twin(name, tmp_path / "twin", **options)
    generator = DiffusersGenerator.load(str(folder), readout).in_steps(steps).with_stepping(Stepping("fresh", times))
    generator.check_exportable()
    generator.save_pretrained(tmp_path / "final")
    again = DiffusersGenerator.load(str(tmp_path / "final"))
    assert again.steps == steps and again.readout == 1.0 and again.step_noise == "fresh"
    noise = fixed_noise(len(PROMPTS), generator.latent_shape, 5)
    condition = load_reference(str(folder)).encode(PROMPTS)
    with torch.no_grad():
        ours, reloaded = generator.generate(noise, condition), again.generate(noise, condition)
        single = generator.in_steps(1).generate(noise, condition)
    scale = ours.abs().max().clamp_min(1)  # a random network that predicts noise is divided by a small alpha
    assert (ours - reloaded).abs().max() < 1e-4 * scale
    theirs = stock_latents(tmp_path / "final", noise, noises_of(noise, steps - 1), steps, monkeypatch)
    assert (ours - theirs).abs().max() < 1e-4 * scale
    assert (ours - single).abs().max() > 1e-2


def test_a_saved_generator_is_loaded_as_what_it_is(run: Run, tmp_path: Path) -> None:
    first = run("first", steps=2)
    shutil.copytree(first.folder / "final", tmp_path / "copied")
    for name in (str(first.folder), str(tmp_path / "copied"), f"diffusers:{tmp_path / 'copied'}"):
        loaded = load_generator(name)
        assert isinstance(loaded, DiffusersGenerator) and loaded.steps == 4
    second = train(
        TrainConfig(generator=str(first.folder), steps=2, batch_size=2, eval_count=2, device="cpu", out=tmp_path / "b")
    )
    assert "generator_steps: 4" in (second.folder / "config.yaml").read_text()
    assert load_generator(str(second.folder)).steps == 4  # type: ignore[attr-defined]


def test_steps_are_recommended_by_the_folder_and_can_be_said(run: Run, world: dict[str, Any], tmp_path: Path) -> None:
    final = run("first", steps=2).folder / "final"
    shutil.copytree(final, tmp_path / "copied")
    base = {name: world[name] for name in ("reference", "prompts", "device", "batch_size", "eval_count")}
    base["generator"] = str(tmp_path / "copied")
    assert resolve(TrainConfig(**base)).generator_steps == 4
    for steps in (1, 2):
        asked = resolve(TrainConfig(**base, generator_steps=steps))
        assert assemble(asked).generator.steps == steps  # type: ignore[attr-defined]
    # A generator that was not here when the settings were resolved, one of the hub say, is not cut down silently.
    with pytest.raises(RequestError, match=r"saved to take 4 steps. Set generator_steps=4, or generator_steps=1"):
        assemble(TrainConfig(**base))
    assert resolve(TrainConfig(**base | {"generator": world["reference"]})).generator_steps == 1


def test_dipp_generate_takes_the_generators_own_steps(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(run("run", steps=2).folder)
    words = ["generate", "--generator", folder, "--prompt", PROMPTS[0], "--seed", "3", "--device", "cpu", "--json"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    assert main([*words, "--steps", "4", "--out", str(tmp_path / "b")]) == 0
    files = [Path(json.loads(capsys.readouterr().out)["images"][0]).read_bytes()]
    assert main([*words, "--prompt", PROMPTS[1], "--out", str(tmp_path / "c")]) == 0
    files.append(Path(json.loads(capsys.readouterr().out)["images"][0]).read_bytes())
    assert files[0] == files[1], "the first image is the same with another beside it"
    assert main([*words, "--steps", "2", "--out", str(tmp_path / "d")]) == 2
    assert "makes its image in 4 steps, not in 2" in capsys.readouterr().err


def test_a_bench_counts_every_pass_and_knows_the_times(run: Run) -> None:
    folder = run("run", steps=2).folder
    source = BenchEntry("few", str(folder)).source(torch.device("cpu"))
    assert source.evaluations == 4
    together, alone = source.images(PROMPTS, [1, 2, 3, 4]), source.images(PROMPTS[2:3], [3])
    torch.testing.assert_close(together[2:3], alone, rtol=1e-5, atol=1e-5)
    fingerprints = {source.fingerprint()}
    for steps in (1, 2):
        source.generator = load_generator(str(folder)).in_steps(steps)  # type: ignore[attr-defined]
        assert source.evaluations == steps
        fingerprints.add(source.fingerprint())
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["generator_steps=9"], "generator_steps cannot be 9: input should be less than or equal to 8"),
        (["generator_steps=0"], "generator_steps cannot be 0: input should be greater than or equal to 1"),
        (["supervise=all"], "supervise cannot be 'all': input should be 'last' or 'every'"),
        (["generator_steps=4", "readout=0.005"], "too few for 4 steps"),
    ],
)
def test_settings_that_cannot_be_are_sentences(
    world: dict[str, Any], tmp_path: Path, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--reference", world["reference"], "--prompts", world["prompts"], "--device", "cpu"]
    given = [piece for word in words for piece in ("--set", word)]
    assert main([*command, "--out", str(tmp_path / "run"), *given]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_flow_model_read_out_below_its_last_time_is_refused(
    tmp_path: Path, world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_twin("StableDiffusion3Pipeline", tmp_path / "sd3")
    words = ["distill", "--reference", str(folder), "--prompts", world["prompts"], "--device", "cpu", "--out",
             str(tmp_path / "run"), "--set", "generator_steps=2", "--set", "readout=0.5"]  # fmt: skip
    assert main(words) == 2
    assert "starts at time 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
