"""Steps without fresh noise, and steps at other times than even ones: formulas, plain diffusers, settings, records."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dipp_cli.app import main
from dipp_toolkit import RequestError, TrainConfig, load_reference
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.experiments.acceptance.plain_pipeline import plain_images, plain_pipeline
from dipp_toolkit.experiments.bench.sources import Source
from dipp_toolkit.models.few_steps import draws_noise, with_stepping
from dipp_toolkit.models.generator import DiffusersGenerator
from dipp_toolkit.models.published import PublishedGenerator
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.models.stock_schedulers import recorded_steps, saved_steps
from dipp_toolkit.models.stock_steps import saved_stepping, stock_steps
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.protocols import DeterministicSteps
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.publish import call_arguments
from dipp_toolkit.training.setup.assembly import check_generator
from dipp_toolkit.training.setup.resolve import resolve
from dipp_toolkit.utils.step_settings import USUAL, Stepping, recorded_stepping
from dipp_toolkit.verify.gaussian_network import gaussian_denoiser
from dipp_toolkit.verify.network import GIVEN
from kept_gradients import keep_gradients
from test_few_steps import Chain, condition_of, draws, engine_of
from tiny import LATENT_SHAPE, PROMPTS

TWO = PROMPTS[:2]
SD, PIXART, FLUX, KLEIN, QWEN = (
    "StableDiffusionPipeline", "PixArtAlphaPipeline", "FluxPipeline", "Flux2KleinPipeline", "QwenImagePipeline",
)  # fmt: skip
VELOCITY = {"prediction_type": "v_prediction"}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("twins")

    def twin(name: str, **options: Any) -> Path:
        folder = root / f"{name}{len(options)}"
        return folder if folder.exists() else write_twin(name, folder, **options)

    return twin


def generator_of(folder: Path, steps: int, times: Any = "even", scale: Any = "unit") -> DiffusersGenerator:
    loaded = DiffusersGenerator.load(str(folder), input_scale=scale)
    return loaded.in_steps(steps).with_stepping(Stepping("none", times))


@pytest.mark.parametrize(
    ("name", "options", "steps", "times", "scale"),
    [
        (SD, VELOCITY, 2, "even", "unit"),
        (SD, VELOCITY, 4, "even", "sigma"),
        (SD, VELOCITY, 4, (900.0, 620.0, 300.0, 20.0), "sigma"),
        (PIXART, {}, 3, "even", "unit"),  # 3 does not divide 1000
        (PIXART, {}, 2, "stock", "unit"),
        (PIXART, {}, 4, "stock", "unit"),
        (FLUX, {}, 2, "even", "unit"),
        (FLUX, {}, 4, "stock", "unit"),
        (KLEIN, {}, 4, "stock", "unit"),
        (QWEN, {}, 2, "stock", "unit"),
        (QWEN, {}, 4, (1.0, 0.9, 0.75, 0.5), "unit"),
    ],
)
def test_plain_diffusers_takes_the_same_steps(
    twins: Any, tmp_path: Path, name: str, options: dict[str, Any], steps: int, times: Any, scale: Any
) -> None:
    folder = twins(name, **options)
    generator = generator_of(folder, steps, times, scale)
    generator.check_exportable()
    generator.save_pretrained(tmp_path / "final")
    again = DiffusersGenerator.load(str(tmp_path / "final"))
    assert (again.steps, again.step_noise, again.input_scale) == (steps, "none", scale)
    assert saved_steps(str(tmp_path / "final")) == steps
    reference = load_reference(str(folder))
    noise, condition = fixed_noise(2, generator.latent_shape, 5), reference.encode(TWO)
    with torch.no_grad():
        ours, reloaded = generator.generate(noise, condition), again.generate(noise, condition)
        single = generator.in_steps(1).generate(noise, condition)
        images = reference.decode(ours)
    torch.testing.assert_close(ours, reloaded, rtol=0, atol=1e-5)
    pipeline = plain_pipeline(tmp_path / "final", torch.float32, torch.device("cpu"))
    theirs = plain_images(pipeline, tmp_path / "final", TWO, noise, call_arguments(tmp_path / "final", steps))
    assert float((images - theirs).abs().max()) < 1e-5
    assert float((ours - single).abs().max()) > 1e-2


@pytest.mark.parametrize(("name", "options"), [(SD, VELOCITY), (FLUX, {})])
def test_a_gaussians_law_after_k_steps_is_the_closed_form(twins: Any, name: str, options: dict[str, Any]) -> None:
    r"""With $d = x_t - \alpha_t m$ a step is $d' = (\alpha \alpha' S + \sigma \sigma') C^{-1} d$, and the sample is
    $m + \alpha S C^{-1} d$."""
    m, s = torch.tensor([0.7, -0.4, 1.1]).double(), torch.diag(torch.tensor([0.5, 2.0, 0.05]).double())
    condition = Condition(("",) * 4, {GIVEN: torch.zeros(4, 1).double()})
    basis = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double().reshape(4, 3, 1, 1)
    farther = []
    for steps in (2, 4, 8):
        loaded = generator_of(twins(name, **options), steps)
        schedule = loaded.denoiser.schedule
        exact = gaussian_denoiser(Gaussian(m, s), Gaussian(m, s), schedule)
        generator = replace(loaded, _denoiser=exact)
        with torch.no_grad():
            made = generator.generate(basis, condition).flatten(1)
        shift, linear = made[0], (made[1:] - made[0]).mT
        t = torch.tensor(generator.times).double()
        alpha, sigma, eye = schedule.alpha(t), schedule.sigma(t), torch.eye(3).double()
        expected = eye
        for k in range(steps - 1):
            onwards = alpha[k] * alpha[k + 1] * s + sigma[k] * sigma[k + 1] * eye
            expected = onwards @ torch.linalg.inv(alpha[k] ** 2 * s + sigma[k] ** 2 * eye) @ expected
        expected = alpha[-1] * s @ torch.linalg.inv(alpha[-1] ** 2 * s + sigma[-1] ** 2 * eye) @ expected
        torch.testing.assert_close(linear, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shift, m - expected @ (alpha[0] * m), rtol=1e-5, atol=1e-5)
        farther.append(float((expected @ expected.mT - s).abs().max()))
    assert farther[0] > farther[1] > farther[2], "more steps come nearer to the reference's law"


class DeterministicChain(Chain):
    """The curved chain without fresh noise."""

    step_noise = "none"

    def first_input(self, noise: Tensor) -> Tensor:
        return self.sigmas[0] * noise

    def noise_in(self, x_t: Tensor, x0: Tensor, step: int) -> Tensor:
        return (x_t - self.alphas[step] * x0) / self.sigmas[step]


@pytest.mark.parametrize("supervise", ["last", "every"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_the_chain_written_out(supervise: Any, recompute: bool) -> None:
    generator = DeterministicChain(4)
    assert isinstance(generator, DeterministicSteps) and not draws_noise(generator)
    (noise,) = draws(1)
    x_t, samples = generator.sigmas[0] * noise, list[Tensor]()
    for step in range(4):
        told = torch.full((len(noise), 1), float(step), dtype=torch.float64)
        samples.append(generator.network(torch.cat([x_t.flatten(1), told], 1)).reshape(noise.shape))
        if step < 3:
            x0 = samples[-1] if supervise == "last" else samples[-1].detach()
            held = x_t if supervise == "last" else x_t.detach()
            hat = (held - generator.alphas[step] * x0) / generator.sigmas[step]
            x_t = generator.alphas[step + 1] * x0 + generator.sigmas[step + 1] * hat
    looked_at = samples[-1:] if supervise == "last" else samples
    loss = torch.stack([(2 * item).cos().sum() / len(noise) for item in looked_at]).mean()
    expected = torch.autograd.grad(loss, list(generator.network.parameters()))
    engine = engine_of(generator, supervise, recompute_generator=recompute)
    keep_gradients(engine)
    engine.update_generator(condition_of())
    for parameter, gradient in zip(generator.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-13)
    random = torch.Generator().manual_seed(11)
    torch.randn(noise.shape, generator=random, dtype=torch.float64)
    assert torch.equal(engine.random.get_state(), random.get_state()), "one noise was drawn and nothing else"


def test_the_assistant_follows_deterministic_steps_too() -> None:
    generator = DeterministicChain(4)
    engine = engine_of(generator, "every")
    lengths = []
    for _ in range(40):
        generator.read.clear()
        engine.update_assistant(condition_of())
        lengths.append(len(generator.read))
    assert {*lengths} == {1, 2, 3, 4}


def test_of_one_step_there_is_one_way(twins: Any, tmp_path: Path) -> None:
    plain = DiffusersGenerator.load(str(twins(PIXART)))
    other = plain.with_stepping(Stepping("none", "stock"))
    noise, condition = torch.randn(2, *LATENT_SHAPE), load_reference(str(twins(PIXART))).encode(TWO)
    assert plain.times == other.times == (1.0,)
    assert torch.equal(plain.generate(noise, condition), other.generate(noise, condition))
    other.save_pretrained(tmp_path / "final")
    config = json.loads((tmp_path / "final" / "scheduler" / "scheduler_config.json").read_text())
    assert recorded_stepping(config) == USUAL and recorded_steps(config) == 1
    assert with_stepping(plain, "none", "stock", "mine") is plain


def test_usual_steps_are_exported_as_they_were(twins: Any, tmp_path: Path) -> None:
    for name in (PIXART, FLUX):
        DiffusersGenerator.load(str(twins(name))).in_steps(4).save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "scheduler" / "scheduler_config.json").read_text())
        assert not [key for key in config if key.startswith("_generator")] and recorded_steps(config) == 4
        assert call_arguments(tmp_path / name, 4).keys().isdisjoint({"timesteps", "sigmas"})


EULER = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PNDM = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "skip_prk_steps": True}
CIRCLE = {"_class_name": "SCMScheduler", "num_train_timesteps": 1000}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.mark.parametrize(
    ("config", "stepping", "message"),
    [
        (PNDM, Stepping("none", "stock"), r"PNDMScheduler reads the network 5 times in 4 steps.*generator_times=even"),
        (EULER, Stepping("none", "stock"), r"whole numbers from 999 to 1, decreasing; its scheduler lays.*666, 333, 0"),
        (EULER, Stepping("none", (999.5, 3, 2, 1)), r"whole numbers from 999 to 1, decreasing; got 999.5"),
        (EULER, Stepping("none", (1000, 3, 2, 1)), r"whole numbers from 999 to 1, decreasing; got 1000"),
        (EULER, Stepping("none", (9, 3)), r"generator_times has 2 times, and the generator takes 4 steps"),
        (FLOW, Stepping("none", (0.9, 0.5, 0.2, 0.1)), r"go from 1, which is pure noise.*got 0.9.*1,0.75,0.5,0.25"),
        (FLOW, Stepping("fresh", (9, 8, 7, 6)), r"go from 1, which is pure noise, to above 0; got 9"),
        (CIRCLE, Stepping("none"), r"SCMScheduler of a TrigFlow generator draws fresh noise.*step_noise=fresh"),
    ],
)
def test_what_no_stock_scheduler_can_express_is_a_sentence(
    config: dict[str, Any], stepping: Stepping, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        stock_steps(config, 1.0, 4, LATENT_SHAPE, stepping=stepping)


def test_fresh_noise_needs_z_and_a_pipeline_that_can_be_told_its_times(twins: Any) -> None:
    listed = Stepping("fresh", (900.0, 100.0))
    with pytest.raises(RequestError, match=r"given sigma z .*Set input_scale=unit, or step_noise=none"):
        stock_steps(EULER, 1.0, 2, LATENT_SHAPE, "sigma", listed)
    hunyuan = generator_of(twins("HunyuanDiTPipeline"), 2, (900.0, 100.0))
    with pytest.raises(RequestError, match=r"HunyuanDiTPipeline cannot be told its timesteps"):
        hunyuan.check_exportable()
    with pytest.raises(RequestError, match="'mine' takes its steps in its own way"):
        with_stepping(Chain(4), "none", None, "mine")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"generator_times": "999,749,499"}, (3, (999.0, 749.0, 499.0))),
        ({"generator_times": [1, 0.5], "generator_steps": 2}, (2, (1.0, 0.5))),
        ({"generator_times": "stock", "generator_steps": "4"}, (4, "stock")),
    ],
)
def test_times_say_how_many_steps_there_are(given: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    config = TrainConfig(**given)
    assert (config.generator_steps, config.generator_times) == expected
    assert make_config(config.model_dump(mode="json", exclude_unset=True)) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"generator_times": "999,749", "generator_steps": 4}, "has 2 times, and generator_steps is 4"),
        ({"generator_times": [0.4]}, "has 1 time; expected one for each of 2 to 8 steps"),
        ({"generator_times": "1,2"}, "each time to be smaller than the one before it"),
        ({"generator_times": "1,nan"}, "positive, finite numbers"),
        ({"generator_times": "1,x"}, "even, stock, or decreasing numbers"),
        ({"generator_times": "odd"}, "even, stock, or decreasing numbers"),
        ({"step_noise": "some"}, "input should be 'fresh' or 'none'"),
    ],
)
def test_settings_that_cannot_be_are_sentences(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TrainConfig(**given)


@pytest.mark.parametrize(
    "record", [{"_generator_noise": "some"}, {"_generator_times": [1, 2]}, {"_generator_times": 3}]
)
def test_a_damaged_record_is_a_sentence(record: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="The scheduler's configuration has _generator_"):
        recorded_stepping(record)


def test_a_saved_generator_recommends_its_own_steps(twins: Any, tmp_path: Path) -> None:
    final, other = tmp_path / "final", tmp_path / "other"
    generator_of(twins(PIXART), 2, (700.0, 200.0)).save_pretrained(final)
    DiffusersGenerator.load(str(twins(PIXART))).save_pretrained(other)
    expected = {"generator_steps": 2, "step_noise": "none", "generator_times": (700.0, 200.0)}
    assert saved_stepping(str(final)) == expected and saved_stepping(str(other)) == {"generator_steps": 1}
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    base = {"generator": str(final), "reference": str(twins(PIXART)), "prompts": str(tmp_path / "prompts.txt")}
    resolved = resolve(TrainConfig(**base))
    assert {name: getattr(resolved, name) for name in expected} == expected
    fewer = resolve(TrainConfig(**base, generator_steps=4))
    assert (fewer.step_noise, fewer.generator_times) == ("none", "even"), "its times were those of two steps"


def test_a_readout_that_contradicts_the_times_is_refused(twins: Any) -> None:
    generator = DiffusersGenerator.load(str(twins(PIXART)), 0.4)
    asked: dict[str, Any] = {"generator_times": (700, 200), "step_noise": "none"}
    with pytest.raises(RequestError, match=r"readout=0.4 .* first of generator_times is 700 of 999.*Leave readout out"):
        check_generator(generator, TrainConfig(**asked, readout=0.4), LATENT_SHAPE)
    taken: Any = check_generator(generator, TrainConfig(**asked, readout=700 / 999), LATENT_SHAPE)
    assert taken.times == pytest.approx((700 / 999, 200 / 999))
    names: dict[str, Any] = {"generator": "sd15-onestep", "prompts": "emoji-train"}
    assert resolve(TrainConfig(**names, **asked)).readout is None, "it is recommended for one step"
    several = resolve(TrainConfig(**names, generator_steps=2, step_noise="none"))
    assert (several.readout, several.input_scale) == (625 / 999, "sigma")


def test_a_bench_knows_the_noise(twins: Any) -> None:
    reference = load_reference(str(twins(PIXART)))
    two = generator_of(twins(PIXART), 2)
    prints = {Source(reference, generator).fingerprint() for generator in (two, two.with_stepping(USUAL))}
    assert len(prints) == 2


def test_published_names_take_the_steps_that_they_were_made_for() -> None:
    entries = get_registry().entries["generator"]
    for name, steps in {"flux2-klein": 4, "qwen-image-lightning": 4, "qwen-image-lightning-8": 8, "z-image-turbo": 8,
                        "z-image-fun-distill-4": 4}.items():  # fmt: skip
        made = {key: entries[name].defaults[key] for key in ("generator_steps", "step_noise", "generator_times")}
        assert made == {"generator_steps": steps, "step_noise": "none", "generator_times": "stock"}, name
    lightning = entries["sdxl-lightning-4"].defaults
    assert (lightning["generator_steps"], lightning["step_noise"], lightning["input_scale"]) == (4, "none", "sigma")
    assert "generator_steps" not in entries["flux-schnell"].defaults  # made for 1 to 4, and of one unless somebody says
    assert entries["flux-schnell"].defaults["step_noise"] == "none"


def test_lightnings_levels_are_those_of_a_shift_of_three(twins: Any) -> None:
    record = get_registry().entries["generator"]["qwen-image-lightning"].factory
    assert isinstance(record, PublishedGenerator)
    loaded = generator_of(twins(QWEN), 4, "stock")
    generator = replace(loaded, scheduler_config={**loaded.scheduler_config, **record.scheduler})
    levels = generator.denoiser.schedule.sigma(torch.tensor(generator.times))
    assert levels.tolist() == pytest.approx([1, 0.9, 0.75, 0.5], abs=1e-6)


def test_kleins_levels_have_the_pipelines_shift(twins: Any) -> None:
    generator = generator_of(twins(KLEIN), 4, "stock")
    shift = math.exp(generator.family.stock_call.mu({}, generator.latent_shape, 4))  # type: ignore[attr-defined]
    even = [1, 0.75, 0.5, 0.25]
    levels = generator.denoiser.schedule.sigma(torch.tensor(generator.times))
    assert levels.tolist() == pytest.approx([shift * t / (1 + (shift - 1) * t) for t in even], rel=1e-5)


def test_guidance_of_two_passes_is_refused_for_a_teacher_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    base: dict[str, Any] = {"generator": "z-image-onestep", "reference": "z-image-turbo-reference"}
    turbo = TrainConfig(**base, prompts="emoji-train", guidance=1.0, reference_guidance=1.0)
    assert resolve(turbo).guidance == 1.0
    for name, value in (("guidance", 3.0), ("reference_guidance", 2.0), ("guidance_schedule", "0:1,9:3")):
        with pytest.raises(RequestError, match=f"distilled without the empty prompt, and {name} is"):
            resolve(turbo.replace(**{name: value}))
    words = ["generate", "--reference", "diffusers:Tongyi-MAI/Z-Image-Turbo", "--prompt", "a cat", "--guidance", "4"]
    assert main(words) == 2
    assert "Set guidance=1" in capsys.readouterr().err
