"""Every term of the family in real runs, what their options refuse, and how terms come to be registered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dipp_toolkit import RequestError, TrainConfig, load_reference
from dipp_toolkit.diffusion.times import LogitNormalTimes
from dipp_toolkit.errors import RunError
from dipp_toolkit.events import StepEvent
from dipp_toolkit.models.reference import DiffusersReference
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.objective.base import Sample, TermContext
from dipp_toolkit.objective.build import build_term, check_term
from dipp_toolkit.objective.estimators.density_ratio import (
    LearnedRatio,
    as_tokens,
    image_features,
    middle_block,
    tokens_of,
)
from dipp_toolkit.objective.terms.policy_gradient import NormalExploration, SigmaPoints
from dipp_toolkit.registry import get_registry
from dipp_toolkit.training.assistant import LearnedAssistant
from dipp_toolkit.training.run import MEASURED
from dipp_toolkit.training.setup.preflight import preflight
from tiny import PROMPTS, tiny_pipeline
from tiny_runs import Run, runs_in

TERMS: dict[str, dict[str, Any]] = {
    "integral_kl": {},
    "score_divergence": {},
    "score_divergence=0.5": {"score_divergence": {"distance": "squared"}},
    "diffused_reward": {"diffused_reward": {"steps": 3, "proxies": 2}},
    "f_divergence": {"f_divergence": {"kind": "forward_kl"}},
    "reward_only": {},
    "policy_gradient": {"policy_gradient": {"group": 3}},
    "integral_kl,policy_gradient=0.5": {},
    "trajectory": {"trajectory": {"sampler_steps": 2}},
    "integral_kl,trajectory=0.5": {},
    "dynamic_kl": {"dynamic_kl": {"updates": 3}},
    "advantage_weighted_kl": {"advantage_weighted_kl": {"strength": 0.8}},
    "integral_kl,last_step_reward": {},
    "integral_kl,group_preference": {"group_preference": {"trust": -1.0, "rounds": 1}},
}
OWN_OPTIONS = """
from dipp_toolkit.objective.terms.score_divergence import ScoreDivergence

def build(context) -> ScoreDivergence:
    return ScoreDivergence(context.reference, context.assistant, c=context.options["mine"])
"""
GROUPS = {"noises_per_prompt": 3}
"""Of a term that compares images of a prompt, in batches of three."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run on a tiny pipeline, with a reward from a file."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "blue.py").write_text(
        "def blueness(images, prompts):\n    return images[:, 2].mean((1, 2)) - images[:, :2].mean((1, 2, 3))\n"
    )
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return {
        "reference": str(tiny_pipeline(folder / "reference")),
        "prompts": str(folder / "prompts.txt"),
        "rewards": {f"{folder}/blue.py:blueness": 1.0},
        "batch_size": 3,
        "eval_count": 3,
        "reference_steps": 2,
        "learning_rate": 1e-3,
        "guidance": 2.0,
        "assistant_rounds": 2,
        "assistant_warmup": 1,
        "steps": 4,
        "checkpoint_every": 2,
        "device": "cpu",
    }


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    return runs_in(tmp_path, world)


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def unmeasured(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows_of(folder)]


class DiesAtThree:
    """Kills a run in its third step."""

    def dipp_on_step(self, event: StepEvent) -> None:
        if event.step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("term", TERMS)
def test_every_term_trains_and_resumes_to_the_bit(run: Run, term: str) -> None:
    compares = any(name in term for name in ("advantage", "last_step", "group_preference"))
    changes = {"term": term, "term_options": TERMS[term], **(GROUPS if compares else {})}
    whole = run("whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        run("cut", [DiesAtThree()], **changes)
    cut = run("cut", **changes, resume=True)
    assert unmeasured(whole) == unmeasured(cut)
    last = rows_of(whole)[-1]
    assert any(name.startswith("reward/") for name in last), "what the rewards said is logged whatever the term"
    looks = not term.startswith(("reward_only", "policy_gradient", "trajectory"))
    assert ("assistant_loss" in last) == looks
    assert ("divergence" in last) == looks
    report = (whole / "report.html").read_text()
    assert "gradient" in report.lower()
    assert json.loads((whole / "summary.json").read_text())["divergence"].keys() == (
        {"before", "after"} if looks else set()
    )


def test_the_assistant_of_a_run_that_never_looks_at_it_stays_as_it_was(run: Run, world: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    folder = run("alone", term="reward_only")
    (name,) = (folder / "final" / "assistant").glob("*.safetensors")
    (first,) = (Path(world["reference"]) / "transformer").glob("*.safetensors")
    before, after = load_file(first), load_file(name)
    assert all(torch.equal(before[key], after[key]) for key in after)


def test_of_several_steps_the_last_alone_has_the_reward(run: Run) -> None:
    folder = run("steps", term="integral_kl,last_step_reward", generator_steps=2, supervise="every", steps=1, **GROUPS)
    (row,) = rows_of(folder)
    assert "step_1/last_step_reward" not in row
    assert row["step_2/last_step_reward"] == row["last_step_reward"]
    assert any(name.startswith("reward/") for name in row) and row["pull"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"term": "score_divergance"}, "Did you mean 'score_divergence'"),
        ({"term": ""}, "Name a term"),
        ({"term": "integral_kl,integral_kl"}, "term 'integral_kl' is named twice"),
        ({"term": "integral_kl=x"}, "weight of the term 'integral_kl' is 'x'"),
        ({"term_options": {"f_divergence": {"kind": "forward_kl"}}}, "which this run does not use"),
        ({"term_options": {"integral_kl": {"c": 1}}}, "The term 'integral_kl' has no options; leave c out."),
        ({"term": "score_divergence", "term_options": {"score_divergence": {"distanse": "squared"}}}, "'distance'"),
        ({"term": "score_divergence", "term_options": {"score_divergence": {"c": 0}}}, "greater than 0"),
        ({"term": "f_divergence", "term_options": {"f_divergence": {"kind": "kl"}}}, "kind of the term 'f_divergence'"),
        ({"term": "diffused_reward", "term_options": {"diffused_reward": {"steps": 5}}}, "less than or equal to 4"),
        ({"term": "diffused_reward", "balance": "pcgrad"}, "balance=pcgrad does not work with the term"),
        ({"term": "policy_gradient", "reward_clip": 1.0}, "reward_clip does not work with the term"),
        ({"term": "tuned_difference"}, "needs a tuned reference"),
        ({"term": "reward_only", "reward_scale": 1.0, "term_options": {"reward_only": {"c": 1}}}, "has no options"),
        ({"term": "trajectory", "generator_steps": 2}, "with generator_steps=2 an image depends on several"),
        ({"term": "trajectory", "term_options": {"trajectory": {"share": 0}}}, "greater than 0"),
        ({"term": "dynamic_kl", "term_options": {"dynamic_kl": {"noisy": 0.5}}}, "greater than or equal to 1"),
        (
            {"term": "advantage_weighted_kl", "term_options": {"advantage_weighted_kl": {"strength": 1}}, **GROUPS},
            "than 1",
        ),
        ({"term": "integral_kl,group_preference"}, "cuts groups of 4 images of one prompt"),
        ({"term": "last_step_reward", "noises_per_prompt": 3, "generator_steps": 2}, "through the last step alone"),
        ({"time_sampling": "logit_normal"}, "Did you mean 'logit-normal'"),
        ({"stop_on": "all", "monitor_every": 2}, "stop_on needs at least .* held-out prompts.* there are 3"),
    ],
)
def test_wrong_terms_and_options_are_sentences_of_a_dry_run(
    world: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        preflight(TrainConfig(**{**world, "out": tmp_path / "never", **changes}))


def test_a_function_that_makes_the_toolkits_term_reads_options_in_its_own_way(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_OPTIONS)
    name, options = f"{tmp_path / 'mine.py'}:build", {"mine": 0.5}
    check_term(name, TrainConfig(term=name, term_options={name: options}))


def test_a_file_with_build_is_a_term_and_its_docstring_the_summary() -> None:
    terms = {name: entry for name, entry in get_registry().entries["term"].items() if entry.plugin == "terms"}
    wanted = {"integral_kl", "score_divergence", "diffused_reward", "f_divergence", "reward_only", "policy_gradient"}
    wanted |= {"trajectory", "dynamic_kl", "advantage_weighted_kl", "last_step_reward", "group_preference"}
    assert wanted <= get_registry().entries["term"].keys()
    for entry in terms.values():
        assert entry.summary
        assert not entry.summary.endswith(".")
    found = "import sys; from dipp_toolkit.registry import get_registry; get_registry(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_logit_normal_times_are_what_they_say() -> None:
    times = LogitNormalTimes(0.1, 0.9)(torch.zeros(20000, 1), torch.Generator().manual_seed(0)).t
    place = (times.double() - 0.1) / 0.8
    assert place.min() > 0
    assert place.max() < 1
    logits = place.logit()
    assert logits.mean().item() == pytest.approx(0, abs=0.01)
    assert logits.std().item() == pytest.approx(1, abs=0.02)


def test_explorations_are_unbiased_for_a_slope() -> None:
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    x0 = torch.zeros(1, 3, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    for explore, repeats, close in ((SigmaPoints(), 1, 1e-12), (NormalExploration(5), 20000, 0.05)):
        found = torch.zeros(3, dtype=torch.float64)
        for _ in range(repeats):
            noise, unbiased = explore(x0, random)
            scores = noise[:, 0] @ slope
            found += unbiased * ((scores - scores.mean())[:, None] * noise[:, 0]).mean(0) / repeats
        torch.testing.assert_close(found, slope, atol=close, rtol=0)


def test_the_discriminator_learns_the_ratio_of_two_gaussians() -> None:
    random = torch.Generator().manual_seed(0)
    ratio = LearnedRatio(learning_rate=3e-3)
    t = torch.full((2000,), 0.5)
    for _ in range(600):
        real = 0.7 + torch.randn(2000, 1, 1, generator=random)
        fake = torch.randn(2000, 1, 1, generator=random)
        ratio.update(real, fake, t, t)
    x = torch.linspace(-1.5, 2, 50)
    expected = (x.square() - (x - 0.7).square()) / 2
    found = ratio.log_ratio(x[:, None, None], torch.full((50,), 0.5))
    assert (found - expected).abs().max() < 0.15
    copy = LearnedRatio(learning_rate=3e-3)
    copy.load_state_dict(ratio.state_dict(), torch.device("cpu"))
    assert torch.equal(copy.log_ratio(x[:, None, None], torch.full((50,), 0.5)), found)


def test_the_middle_block_is_found_or_honestly_not() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer_blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(5))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mid_block = nn.Conv2d(2, 2, 1)

    network = Transformer()
    assert middle_block(network) is network.transformer_blocks[2]
    assert isinstance(middle_block(UNet()), nn.Conv2d)
    assert middle_block(nn.Linear(2, 2)) is None
    assert as_tokens(torch.zeros(3, 5, 4, 4)).shape == (3, 16, 5)
    assert as_tokens(torch.zeros(3, 5)).shape == (3, 1, 5)


IMAGE_TOKENS = {
    "StableDiffusionPipeline": 16,
    "StableDiffusionXLPipeline": 16,
    "PixArtAlphaPipeline": 16,
    "StableDiffusion3Pipeline": 16,
    "FluxPipeline": 16,
}


@pytest.mark.parametrize("name", IMAGE_TOKENS)
def test_the_density_ratio_reads_the_images_tokens(name: str, tmp_path: Path) -> None:
    """Blocks of SD3 and Flux return the prompt's tokens first, of which there are many more."""
    reference = load_reference(str(write_twin(name, tmp_path / "twin")))
    assert isinstance(reference, DiffusersReference)
    network, random = reference.denoiser.network, torch.Generator().manual_seed(0)
    x_t = torch.randn(2, *reference.latent_shape, generator=random)
    place = getattr(reference.family, "image_stream", None)
    condition, t = reference.encode(["a red cat", "the sea"]), torch.full((2,), 0.5)
    with torch.no_grad():
        x0, tokens = tokens_of(network, reference.denoiser.predict_x0, x_t, t, condition, place)
    assert tokens.shape[:2] == (2, IMAGE_TOKENS[name])
    torch.testing.assert_close(x0, reference.denoiser.predict_x0(x_t, t, condition))


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_every_family_trains_an_f_divergence(name: str, tmp_path: Path) -> None:
    reference = load_reference(str(write_twin(name, tmp_path / "twin")))
    denoiser = reference.denoiser.trainable_copy()
    for parameter in denoiser.network.parameters():
        parameter.data.mul_(1.1)  # or it would predict what the reference does
    assistant = LearnedAssistant(denoiser, torch.optim.SGD(denoiser.network.parameters(), 0.1))
    config = TrainConfig(term="f_divergence", reference_steps=1, time_range=(0.2, 0.8))
    term = build_term("f_divergence", TermContext(reference, assistant, config, name="f_divergence"))
    x0 = torch.randn(2, *reference.latent_shape, generator=torch.Generator().manual_seed(0))
    sample = Sample(x0, reference.encode(["a red cat", "the sea"]), x0, torch.Generator().manual_seed(1))
    for _ in range(2):
        result = term(sample)
    assert torch.isfinite(result.grad).all() and result.grad.any() and result.details["log_ratio"]


class Joint(nn.Module):
    """A block of two streams whose order nothing says."""

    def forward(self, hidden_states: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        return prompt, hidden_states


def test_the_images_stream_is_known_by_its_shape_or_not_at_all() -> None:
    image, prompt = torch.ones(2, 9, 4), torch.zeros(2, 5, 4)
    block = Joint()
    found = image_features(block, (image,), {"prompt": prompt}, block(image, prompt))
    assert torch.equal(found, image)
    alike = torch.zeros(2, 9, 4)
    with pytest.raises(RunError, match="Give the pipeline's family an image_stream"):
        image_features(block, (image, alike), {}, block(image, alike))
    assert torch.equal(image_features(block, (image, alike), {}, block(image, alike), place=1), image)
