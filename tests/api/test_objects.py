"""Trainings from objects: rewards, prompts, pipelines and networks where the command line takes names."""

from __future__ import annotations

import html
import json
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

import dipp_toolkit
from dipp_cli.app import main
from dipp_toolkit import (
    Interrupted,
    RequestError,
    RunResult,
    TrainConfig,
    VariancePreserving,
    generate,
    load_generator,
    load_prompts,
    load_reference,
    own_generator,
    own_reference,
    train,
)
from dipp_toolkit.api.parts import GivenParts
from dipp_toolkit.registry import GIVEN, get_registry
from dipp_toolkit.training.run_state.checkpoint import checkpoints
from dipp_toolkit.verify import gaussian_denoiser
from dipp_toolkit.verify.cases import make_reference
from tiny import LATENT_SHAPE, PROMPTS, tiny_pipeline

QUICK: dict[str, Any] = {
    "batch_size": 2, "eval_count": 2, "reference_steps": 1, "learning_rate": 1e-3, "device": "cpu", "steps": 2,
    "monitor_every": 0, "diagnose_every": 0, "guidance": 1.0,
}  # fmt: skip


def redness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


class Brightness(nn.Module):
    """A network as a reward."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.scale * images.mean((1, 2, 3))


class Small(nn.Module):
    """A network of somebody's own as a generator, told of no prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, noise: Tensor, condition: Any) -> Tensor:
        return self.layer(noise)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("world") / "tiny")


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Iterator[Callable[..., RunResult]]:
    """Trains on the tiny pipeline with some words changed."""

    def start(name: str = "run", **changes: Any) -> RunResult:
        words = {"generator": tiny, "reference": tiny, "prompts": list(PROMPTS), "rewards": redness}
        return train(**{**words, **QUICK, "out": tmp_path / name, **changes})

    yield start
    assert not [entry for entry in get_registry() if entry.plugin == GIVEN], "a lent name is gone after its run"


def weights(result: RunResult) -> dict[str, Tensor]:
    return dict(result.pipeline.transformer.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_functions_are_rewards(run: Callable[..., RunResult], tiny: Path, tmp_path: Path) -> None:
    result = run(rewards=[redness, lambda images: images.mean((1, 2, 3)), Brightness()], judge="colourfulness")
    assert list(result.summary["rewards"]) == ["redness", "lambda", "brightness"]
    assert result.summary["judge"]["name"] == "colourfulness"
    file = tmp_path / "mine.py"
    file.write_text("def redness(images, prompts):\n    return images[:, 0].mean((1, 2))\n")
    by_object, by_name = run("object", rewards={redness: 0.5}), run("name", rewards={f"{file}:redness": 0.5})
    assert same(weights(by_object), weights(by_name)), "an object trains like its name"


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ("clip=0.5,hps", {"clip": 0.5, "hps": 1.0}),
        (["clip", "hps=2"], {"clip": 1.0, "hps": 2.0}),
        (redness, {"redness": 1.0}),
        ({redness: 0.25, "hps": 2}, {"redness": 0.25, "hps": 2.0}),
        ({"red": redness}, {"red": 1.0}),
        ({"red": (redness, 0.5)}, {"red": 0.5}),
        ([lambda images: images, lambda images: images], {"lambda": 1.0, "lambda-2": 1.0}),
        ([Brightness], {"brightness": 1.0}),
    ],
)
def test_weights_of_rewards(given: Any, weights: dict[str, float]) -> None:
    assert GivenParts().rewards(given) == weights


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (3, "neither a name nor a function"),
        (lambda: 1, r"signature \(\)"),
        ({redness: "a lot"}, "The weight of the reward 'redness' is 'a lot'; expected a number"),
        ({"jpeg": redness}, "There is a reward 'jpeg' already; give yours another name"),
        (["hps", "hps"], "'hps' is given twice"),
    ],
)
def test_what_is_no_reward_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        GivenParts().rewards(given)


def test_a_judge_that_is_trained_on_is_noticed(run: Callable[..., RunResult]) -> None:
    with pytest.raises(RequestError, match=r"The judge 'redness' is also trained on.*with judge=\."):
        run(rewards=redness, judge=redness)


@pytest.mark.first_case
@pytest.mark.parametrize("kind", ["tuple", "dataset", "set", "path"])
def test_prompts_of_every_kind_are_the_same(
    run: Callable[..., RunResult], tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    given = {
        "tuple": tuple(PROMPTS), "dataset": datasets.Dataset.from_dict({"prompt": list(PROMPTS)}),
        "set": load_prompts(str(file)), "path": file,
    }[kind]  # fmt: skip
    assert same(weights(run(prompts=given)), weights(run("list")))


def test_a_registered_set_keeps_its_name() -> None:
    objects = GivenParts()
    assert objects.prompts(load_prompts("emoji-train", count=3)) == "emoji-train?count=3"
    assert objects.parts == []


def test_prompt_sets_count_and_iterate() -> None:
    prompts = load_prompts(["a cat", "a dog"])
    assert (len(prompts), [prompt.text for prompt in prompts]) == (2, ["a cat", "a dog"])
    assert (prompts[1].text, [one.text for one in prompts[:1]]) == ("a dog", ["a cat"])
    assert repr(load_prompts("emoji-train", count=5)) == "<prompt set 'emoji-train?count=5', 5 prompts>"
    with pytest.raises(RequestError, match="is a int; expected a list of texts"):
        load_prompts(3)  # type: ignore[arg-type]


def test_pipelines_are_generator_and_reference(
    run: Callable[..., RunResult], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPP_CACHE", str(tmp_path / "cache"))
    pipeline = DiffusionPipeline.from_pretrained(tiny)
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    result = run(generator=pipeline, reference=pipeline)
    assert same(weights(result), weights(run("named"))), "a pipeline trains like its folder"
    assert same(before, dict(pipeline.transformer.state_dict())), "what was given stays as it is"
    (folder,) = (tmp_path / "cache" / "pipelines").iterdir()
    assert TrainConfig.from_yaml(result.folder / "config.yaml").generator == str(folder)
    with torch.no_grad():
        next(pipeline.transformer.parameters()).mul_(1.5)
    other = run("other", generator=pipeline, reference=tiny)
    assert not same(weights(other), weights(result)), "weights that were changed in memory are those that count"
    assert len(list((tmp_path / "cache" / "pipelines").iterdir())) == 2


def test_a_pipeline_with_a_loose_lora_is_refused(tiny: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny)
    pipeline.transformer.peft_config = {"default": object()}  # as load_lora_weights leaves it
    with pytest.raises(RequestError, match=r"The transformer of the PixArtAlphaPipeline has a LoRA.*fuse_lora"):
        GivenParts().generator(pipeline)


def test_a_network_of_ones_own_is_a_generator(run: Callable[..., RunResult], tiny: Path) -> None:
    with pytest.raises(RequestError, match=r"a Small, a network of its own; wrap it first: generator=own_generator"):
        run(generator=Small())
    network = Small()
    start = network.layer.weight.detach().clone()
    generator = own_generator(network, LATENT_SHAPE)
    result = run(generator=generator, assistant_warmup=0)
    trained = result.generator
    assert torch.equal(network.layer.weight, start) and not torch.equal(trained.network.layer.weight, start)
    assert isinstance(trained("a red cat", seed=1), Image.Image)
    again = generator.load_pretrained(result.folder)
    assert torch.equal(again.network.layer.weight, trained.network.layer.weight)
    with pytest.raises(RequestError, match=r"\.generator\.$"):
        _ = result.pipeline
    with pytest.raises(RequestError, match="knows no reference"):
        again("a red cat")
    on = run(generator=generator, resume=True, steps=3)
    assert on.summary["steps"] == 3


def test_a_network_of_ones_own_is_a_reference(run: Callable[..., RunResult], tiny: Path) -> None:
    whole = load_reference(str(tiny))
    denoiser = whole.denoiser
    own = own_reference(
        denoiser.network, denoiser.schedule, LATENT_SHAPE, whole.encode, prediction=denoiser.prediction,
        call=denoiser.forward, decode=whole.decode,
    )  # fmt: skip
    assert own.sample(own.encode(PROMPTS[:2]), torch.randn(2, *LATENT_SHAPE), 3, 1.5).shape == (2, *LATENT_SHAPE)
    result = run(generator=own_generator(Small(), LATENT_SHAPE), reference=own, rewards=redness)
    assert result.summary["steps"] == 2


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_reference_of_ones_own_is_sampled_from_its_law(guidance: float) -> None:
    exact = make_reference(schedule=VariancePreserving(torch.linspace(0.9999, 1e-4, 1000, dtype=torch.float64)))
    denoiser = gaussian_denoiser(exact.empty, exact.given, exact.denoiser.schedule, "v_prediction")
    own = own_reference(
        denoiser.network, denoiser.schedule, (3, 1, 1), exact.encode, prediction="v_prediction", call=denoiser.forward
    )
    noise = torch.randn(4000, 3, 1, 1, dtype=torch.float64)
    samples = own.sample(own.encode(["a cat"] * len(noise)), noise, 200, guidance).flatten(1)
    law = exact.guided(guidance)
    assert (samples.mean(0) - law.mean).abs().max() < 0.07
    assert (samples.T.cov() - law.covariance).abs().max() < 0.06


def test_a_run_of_objects_says_what_its_settings_cannot_rebuild(
    run: Callable[..., RunResult], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(rewards={"red": redness})
    text = (result.folder / "config.yaml").read_text()
    assert text.startswith("# These settings alone cannot rebuild the run.")
    assert "#   the reward 'red' (a function, given in Python)\n" in text
    assert "#   the prompt set 'given-prompts' (4 of them, given in Python)\n" in text
    page = html.unescape((result.folder / "report.html").read_text())
    assert "the reward 'red' (a function, given in Python)" in page
    with pytest.raises(RequestError, match=r"no file holds: the reward 'red' .*Give them again in Python"):
        train(resume=True, out=result.folder, steps=3, prompts=list(PROMPTS))
    assert main(["train", "--resume", "--out", str(result.folder), "--steps", "3"]) == 2
    assert "was begun in Python with objects that no file holds: the reward 'red'" in capsys.readouterr().err


def test_a_run_of_objects_resumes_to_the_same_bits(run: Callable[..., RunResult]) -> None:
    parts: dict[str, Any] = {"rewards": {"red": redness}, "prompts": list(PROMPTS)}
    whole = run("whole", steps=4, checkpoint_every=2, **parts)
    run("parts", steps=2, **parts)
    resumed = train(resume=True, out=whole.folder.parent / "parts", steps=4, **parts)
    assert same(weights(whole), weights(resumed))
    assert resumed.warnings == whole.warnings


def test_changed_code_of_a_notebook_is_noticed(run: Callable[..., RunResult], monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(source: str) -> Any:
        cell: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, "<ipython-input-1>", "exec"), cell)
        return cell["f"]

    first = typed("def f(images, prompts):\n    return images[:, 0].mean((1, 2))\n")
    second = typed("def f(images, prompts):\n    return images[:, 1].mean((1, 2))\n")
    begun = run(rewards={"red": first})
    assert not any("Changed since" in one for one in run(resume=True, steps=3, rewards={"red": first}).warnings)
    (warning,) = [one for one in run(resume=True, steps=4, rewards={"red": second}).warnings if "Changed since" in one]
    assert "the code of the reward 'red'" in warning
    assert begun.folder.is_dir()


def test_nothing_global_is_moved(run: Callable[..., RunResult]) -> None:
    def state() -> dict[str, Any]:
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]
            "python": random.getstate(),
            "environment": dict(os.environ),
            "folder": Path.cwd(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "dtype": torch.get_default_dtype(),
            "threads": torch.get_num_threads(),
            "gradients": torch.is_grad_enabled(),
            "matmul": torch.get_float32_matmul_precision(),
            "warnings": list(warnings.filters),
            "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        }

    run("first")  # libraries that are loaded for the first time may set what they like
    before = state()
    result = run("second")
    _ = result.generator("a red cat", seed=3), result.pipeline
    assert state() == before


def test_an_interruption_is_caught_as_one(run: Callable[..., RunResult], tmp_path: Path) -> None:
    class Stop:
        def dipp_on_step(self, event: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"everything is saved\. Go on with: train\(resume=True, out=") as stop:
        run(listeners=[Stop()], steps=5)
    assert isinstance(stop.value, Interrupted)
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) == 1


def test_settings_are_keywords_a_config_or_a_file(run: Callable[..., RunResult], tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    config = TrainConfig(generator=str(tiny), reference=str(tiny), **{**QUICK, "steps": 5})
    file.write_text(config.to_yaml())
    given: dict[str, Any] = {"rewards": redness, "prompts": list(PROMPTS), "steps": 2}
    results = [
        run("keywords"),
        train(config, out=tmp_path / "config", **given),
        train(file, out=tmp_path / "file", **given),
    ]
    assert same(weights(results[0]), weights(results[1])) and same(weights(results[0]), weights(results[2]))


def test_a_result_shows_what_the_run_made(run: Callable[..., RunResult]) -> None:
    result = run()
    assert repr(result).startswith(f"<RunResult '{result.folder}', 2 steps; redness ")
    assert "redness" in result._repr_html_() and "data:image/png;base64," in result._repr_html_()
    assert result._repr_png_() == (result.folder / "before_after.png").read_bytes()
    assert (len(result.images.before), len(result.images.after), len(result.images.prompts)) == (4, 4, 4)
    assert sorted(result.images) == ["after", "before", "reference"]
    assert len(result.metrics) == 2
    assert result.report.is_file()
    assert type(result.pipeline).__name__ == "PixArtAlphaPipeline"
    assert RunResult.load(result.folder).summary == result.summary


def test_without_pandas_metrics_are_rows(run: Callable[..., RunResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipp_toolkit.utils.tables.missing_of", list)
    rows = run().metrics
    assert [row["step"] for row in rows] == [1, 2]


def test_a_generator_draws_what_the_command_draws(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_generator(str(tiny))
    pictures = generator(list(PROMPTS[:2]), seed=3)
    words = ["generate", "--generator", str(tiny), "--seed", "3", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*words, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1]]) == 0
    files = sorted(path for path in (tmp_path / "out").glob("*.png") if path.name[0].isdigit())
    assert [np.array_equal(np.asarray(a), np.asarray(Image.open(b))) for a, b in zip(pictures, files, strict=True)] == [
        True, True,
    ]  # fmt: skip
    others = generate(generator, list(PROMPTS[:2]), reference=str(tiny), seed=3)
    assert [np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(pictures, others, strict=True)] == [True, True]
    assert next(generator.network.parameters()).requires_grad, "drawing leaves a generator trainable"
    with pytest.raises(RequestError, match="no description of an image"):
        generator(" ")


def test_dir_lists_what_is_public() -> None:
    assert dir(dipp_toolkit) == sorted(dipp_toolkit.__all__)
    for name in dipp_toolkit.__all__:
        assert getattr(dipp_toolkit, name) is not None
    begun = json.dumps(dir(dipp_toolkit))
    assert "train" in begun and "_LAZY" not in begun
