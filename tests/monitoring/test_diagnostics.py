"""Diagnostics: closed forms of what they estimate, when they warn, and that looking changes nothing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from dipp_toolkit import TrainConfig
from dipp_toolkit.config import make_config
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.diffusion.schedules import VariancePreserving, discrete_times
from dipp_toolkit.monitoring import diagnostics
from dipp_toolkit.monitoring import probe as probe_module
from dipp_toolkit.monitoring.denoised import bin_middles, denoise_samples, kl_by_time
from dipp_toolkit.monitoring.diagnostic import Observation, Sides, all_diagnostics, find_warnings, is_diagnosed
from dipp_toolkit.monitoring.diagnostics import distance, lag, pull, sample_colours
from dipp_toolkit.monitoring.diagnostics.pull import mean_pull, pull_of
from dipp_toolkit.monitoring.first_pull import FirstPulls, first_warning, of_step, pull_in_words
from dipp_toolkit.monitoring.probe import BINS, Probe
from dipp_toolkit.objective.gaussians import Gaussian
from dipp_toolkit.objective.mixing.scale import MEASURED as FIRST
from dipp_toolkit.report import write_report
from dipp_toolkit.report.verdict import warnings_about_images
from dipp_toolkit.training.run import MEASURED, train
from dipp_toolkit.utils.jsonl import read_step_rows
from dipp_toolkit.verify.world import AffineGenerator, AffineMap, ExactAssistant, GaussianReference
from fake_run import write_run
from tiny import PROMPTS, tiny_pipeline

SCHEDULE = VariancePreserving(torch.linspace(0.9999, 1e-3, 1000, dtype=torch.float64).square())


def laws() -> tuple[Gaussian, Gaussian]:
    """A generator's law and the reference's, with other means and other covariances."""
    mixing = torch.tensor([[0.9, 0.0, 0.0], [0.3, 0.7, 0.0], [-0.2, 0.1, 1.2]], dtype=torch.float64)
    p = Gaussian(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), mixing @ mixing.mT)
    return p, Gaussian(torch.tensor([-0.1, 0.4, 0.2], dtype=torch.float64), torch.eye(3, dtype=torch.float64) * 0.8)


def exact_gap(p: Gaussian, q: Gaussian, times: Tensor) -> Tensor:
    """E_p |E_p[x_0|x_t] - E_q[x_0|x_t]|^2 at each time: both are affine in x_t, whose law is normal."""
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    gaps = []
    for a, s in zip(alpha, sigma, strict=True):
        inverse = [torch.linalg.inv(law.noised_covariance(a, s)) for law in (p, q)]
        gain_p, gain_q = (a * law.covariance @ item for law, item in zip((p, q), inverse, strict=True))
        offset = p.mean - (q.mean + gain_q @ (a * p.mean - a * q.mean))
        spread = (gain_p - gain_q) @ p.noised_covariance(a, s) @ (gain_p - gain_q).mT
        gaps.append(offset.square().sum() + spread.trace())
    return torch.stack(gaps)


@pytest.mark.parametrize(("bins", "each", "mean"), [(400, 0.003, 1e-4), (BINS, 0.25, 0.03)])
def test_the_divergence_of_two_denoisers_is_that_of_the_laws(bins: int, each: float, mean: float) -> None:
    p, q = laws()
    times = bin_middles(0.02, 0.98, bins)
    found = kl_by_time(exact_gap(p, q, times), SCHEDULE, times)
    alpha, sigma = SCHEDULE.alpha(times), SCHEDULE.sigma(times)
    expected = kl_divergence(p.noised(alpha, sigma), q.noised(alpha, sigma))
    torch.testing.assert_close(found, expected, rtol=each, atol=0)
    torch.testing.assert_close(found.mean(), expected.mean(), rtol=mean, atol=0)


class World:
    """A Gaussian generator and reference, and a probe of many samples."""

    def __init__(self, rows: int, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(probe_module, "ROWS", rows)
        p, q = laws()
        self.times = bin_middles(0.02, 0.98, BINS)
        self.reference = GaussianReference(q, q, SCHEDULE, self.times)
        self.generator = AffineGenerator(AffineMap(torch.linalg.cholesky(p.covariance), p.mean))
        conditions = self.reference.encode(["a Gaussian"] * 4)
        self.probe = Probe(self.generator, conditions, 0, 10_000, self.times)
        self.assistant = ExactAssistant(self.generator, SCHEDULE)

    def observe(self, earlier: Tensor | None = None, x0: Tensor | None = None) -> Observation:
        x0 = self.probe.samples() if x0 is None else x0
        noise = self.probe.noise(3)
        return Observation(
            probe=self.probe,
            reference=self.reference,
            x0=x0,
            denoised=denoise_samples(self.probe, self.reference, self.assistant, 1.0, x0, earlier, noise),
            metrics=[],
            sides=Sides([], []),
        )

    def look(self, earlier: Tensor | None = None, x0: Tensor | None = None) -> dict[str, Any]:
        observation = self.observe(earlier, x0)
        return {**distance.measure(observation), **lag.measure(observation)}


def test_a_diagnosis_of_many_samples_is_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(40_000, monkeypatch)
    p, q = laws()
    found = world.look()["divergence"]
    exact = kl_by_time(exact_gap(p, q, world.times), SCHEDULE, world.times)
    torch.testing.assert_close(torch.tensor(found["by_time"], dtype=torch.float64), exact, rtol=0.05, atol=0)
    assert found["nats"] == pytest.approx(exact.mean().item(), rel=0.05)
    assert found["per_dimension"] == found["nats"] / 3
    assert found["times"] == world.times.tolist()


def test_a_generator_that_is_the_reference_is_no_distance_away(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(64, monkeypatch)
    _, q = laws()
    world.generator.network.load_state_dict({"matrix": torch.linalg.cholesky(q.covariance), "bias": q.mean})
    assert world.look()["divergence"]["nats"] < 1e-12


def test_a_generator_that_stood_still_has_no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(64, monkeypatch)
    x0 = world.probe.samples()
    assert world.look(earlier=x0)["lag"] == 0.0
    assert "lag" not in world.look()


def test_the_lag_of_a_jump_is_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Moved by d, the assistant's error grows by $|\sigma^2 C^{-1} d|^2$; it had been the posterior's variance."""
    world = World(40_000, monkeypatch)
    p, _ = laws()
    jump = torch.tensor([0.5, -0.3, 0.4], dtype=torch.float64)
    before = world.probe.samples()
    found = world.look(earlier=before, x0=before + jump.reshape(3, 1, 1))["lag"]
    more, had = 0.0, 0.0
    for alpha, sigma in zip(SCHEDULE.alpha(world.times), SCHEDULE.sigma(world.times), strict=True):
        inverse = torch.linalg.inv(p.noised_covariance(alpha, sigma))
        weight = (alpha / sigma).square().clamp(max=5) + 0.1
        more += (weight * (sigma.square() * inverse @ jump).square().sum()).item()
        had += (weight * (p.covariance - alpha.square() * p.covariance @ inverse @ p.covariance).trace()).item()
    assert found == pytest.approx(more / had, rel=0.05)
    assert found > 0.1


def metrics_of(gradients: dict[str, Tensor]) -> dict[str, float]:
    """What a step logs of its terms' gradients, one sample a row."""
    flat = {name: value.flatten(1) for name, value in gradients.items()}
    row = {f"grad_norm/{name}": value.norm(dim=1).square().mean().sqrt().item() for name, value in flat.items()}
    names = list(flat)
    for k, item in enumerate(names):
        for other in names[k + 1 :]:
            cosine = torch.nn.functional.cosine_similarity(flat[item], flat[other]).mean().item()
            row[f"cosine/{item}/{other}"] = cosine
    return row


def test_the_pull_of_two_sides_is_that_of_their_sums() -> None:
    random = torch.Generator().manual_seed(0)
    names = ("integral_kl", "reward/a", "reward/b")
    sample = {name: torch.randn(1, 12, dtype=torch.float64, generator=random) for name in names}
    found = pull_of(metrics_of(sample), Sides(names[1:], names[:1]))
    assert found is not None
    rewards, kl = sample["reward/a"] + sample["reward/b"], sample["integral_kl"]
    assert found["rewards"] == pytest.approx(rewards.norm().item())
    assert found["divergence"] == pytest.approx(kl.norm().item())
    assert found["ratio"] == pytest.approx((rewards.norm() / kl.norm()).item())
    assert found["cosine"] == pytest.approx(torch.cosine_similarity(rewards, kl).item())


def test_no_pull_is_said_of_one_side_alone() -> None:
    sample = {"integral_kl": torch.ones(2, 3), "reward/a": torch.zeros(2, 3)}
    assert pull_of(metrics_of(sample), Sides(["reward/a"], ["integral_kl"])) is None
    assert pull_of(metrics_of(sample), Sides([], ["integral_kl"])) is None
    assert mean_pull([metrics_of(sample)], Sides(["reward/a"], ["integral_kl"])) is None


def test_the_first_update_says_how_hard_the_rewards_pull_and_which_scale_would_be_usual() -> None:
    config = TrainConfig(rewards={"a": 1.0}, reward_scale=0.3)
    weak = of_step({"pull": 4.5e-5}, config)
    assert weak is not None
    assert not weak.healthy
    assert str(weak).endswith("they will change next to nothing. --pull 0.7 or --reward-scale 4700 would make it 0.7.")
    better = of_step({"pull": 4.5e-5 * weak.usual_scale / 0.3}, TrainConfig(rewards={"a": 1.0}, reward_scale=4700))
    assert better is not None
    assert better.ratio == pytest.approx(0.7, rel=0.02), "the advice must work when it is followed"
    assert better.healthy
    assert str(better) == "The rewards pull 0.71 times as hard as the divergence (reward_scale 4700)."
    strong = of_step({"pull": 300.0}, config)
    assert strong is not None
    assert "the divergence holds nothing" in str(strong)
    assert of_step({}, config) is None
    assert of_step({"pull": 1.0}, TrainConfig()) is None


def test_a_pull_that_is_measured_has_advice_that_works() -> None:
    asked = {"rewards": {"a": 1.0}, "pull": 0.7}
    said = str(of_step({"pull": 0.7}, make_config(asked)))
    assert said == "The rewards pull 0.7 times as hard as the divergence (pull 0.7)."
    assert "--pull 0.7 would let both" in str(of_step({"pull": 500.0}, make_config(asked | {"pull": 500.0})))
    assert "assistant_warmup" in str(of_step({"pull": 5e-3}, make_config(asked)))
    assert "The rewards wait (pull 0.7)" in str(of_step({}, make_config(asked)))


def test_one_side_that_decides_alone_is_warned_of_once_in_the_first_updates() -> None:
    config = TrainConfig(rewards={"a": 1.0})
    pulls = FirstPulls(config)
    said = [pulls.check(step, {"pull": ratio}) for step, ratio in enumerate((0.5, 2.0, 1e-3, 1e-4, 3.0), start=1)]
    assert [item and item.ratio for item in said] == [0.5, None, 1e-3, None, None]
    assert FirstPulls(config).check(FIRST + 1, {"pull": 1e-9}) is None
    rows = [{"step": float(step), "pull": ratio} for step, ratio in enumerate((0.5, 1e-3, 2e-3), start=1)]
    assert first_warning(rows, config).startswith("In 2 of the first 3 updates: the rewards pull 0.0015 times")
    assert first_warning(rows[:1], config) == ""


def test_the_report_says_what_holds_the_pull() -> None:
    rows = [{"step": float(step), "pull": 0.7, "scale/reward/a": 8.0} for step in range(1, 30)]
    one = pull_in_words(rows, make_config({"rewards": {"a": 2.0}, "pull": 0.7}))
    assert one == "0.7 of the divergence's, measured over updates 1 to 16 (0.7) and held; the same as reward_scale=4"
    two = pull_in_words(
        [row | {"scale/reward/b": 0.5} for row in rows], make_config({"rewards": {"a": 1.0, "b": 1.0}, "pull": 0.7})
    )
    assert two.endswith("the same as reward_scale=1 with the weights a=8,b=0.5")
    without = [row | {"scale/reward/a": 0.0} for row in rows]
    none = pull_in_words(without, make_config({"rewards": {"a": 0.0}, "floors": {"a": 1.0}, "pull": 0.7}))
    assert none.endswith("the same as reward_scale=1 with the weights a=0")
    by_hand = pull_in_words(rows, TrainConfig(rewards={"a": 1.0}, reward_scale=80))
    assert by_hand == "0.7, the median over updates 1 to 16; reward_scale 80"
    assert pull_in_words([{"step": 1.0}], TrainConfig()) == ""


def row(step: int, **parts: Any) -> dict[str, Any]:
    """A diagnosis in which all is well, but for what is given. The one before the first update knows of no update."""
    well: dict[str, Any] = {
        "divergence": {"nats": 3.0, "per_dimension": 0.04, "times": [0.25, 0.75], "by_time": [5.0, 1.0]},
        "colours": {"saturation": 0.4, "contrast": 0.2, "clipped": 0.1},
    }
    if step:
        well |= {"lag": 0.05, "pull": {"rewards": 0.7, "divergence": 1.0, "ratio": 0.7, "cosine": -0.02}}
    return {"step": step, **well, **parts}


FAR, LAG, PULL, OPPOSED, COLOUR = (
    distance.NAME, lag.NAME, pull.UNEVEN, pull.OPPOSED, sample_colours.NAME,
)  # fmt: skip
NAMES = tuple(diagnostic.name for diagnostic in all_diagnostics() if diagnostic.name)
FAR_AWAY = {"nats": 90.0, "per_dimension": 0.9, "times": [0.25, 0.75], "by_time": [150.0, 30.0]}
UNHEALTHY: dict[str, dict[str, Any]] = {
    FAR: {"divergence": FAR_AWAY},
    LAG: {"lag": 0.4},
    PULL: {"pull": {"rewards": 300.0, "divergence": 1.0, "ratio": 300.0, "cosine": 0.0}},
    OPPOSED: {"pull": {"rewards": 0.7, "divergence": 1.0, "ratio": 0.7, "cosine": -0.8}},
    COLOUR: {"colours": {"saturation": 0.4, "contrast": 0.2, "clipped": 0.6}},
}
CONFIG = make_config({"generator": "emoji-onestep", "rewards": {"emoji-clip": 1.0}, "steps": 40, "diagnose_every": 10})


def names(rows: list[dict[str, Any]], config: TrainConfig = CONFIG) -> list[str]:
    return [warning.name for warning in find_warnings(rows, config)]


def test_every_name_has_its_warning_and_a_healthy_run_has_none() -> None:
    assert tuple(UNHEALTHY) == NAMES
    healthy = [row(0), row(10), row(20)]
    assert names(healthy) == []
    for name, parts in UNHEALTHY.items():
        assert names([*healthy[:2], row(20, **parts)]) == [name], name


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"lag": -0.4}, [LAG]),
        ({"lag": -0.25}, []),
        ({"pull": {"ratio": 0.005, "cosine": 0.0}}, [PULL]),
        ({"pull": {"ratio": 50.0, "cosine": -0.4}}, []),
        ({"colours": {"saturation": 0.1, "contrast": 0.1, "clipped": 0.0}}, []),
    ],
)
def test_ranges_have_two_ends_where_both_are_harm(parts: dict[str, Any], expected: list[str]) -> None:
    assert names([row(0), row(10), row(20, **parts)]) == expected


def test_what_belongs_to_single_updates_counts_where_it_was_so_in_most() -> None:
    """A run that ends with a falling learning rate is not excused for what went before."""
    bad = {"lag": 0.4}
    assert names([row(0), row(10, **bad), row(20, **bad), row(30)]) == [LAG]
    assert names([row(0), row(10), row(20, **bad), row(30)]) == []
    far = {"divergence": FAR_AWAY}
    assert names([row(0, **far), row(10, **far), row(20)]) == [], "what it is now counts"


def test_a_distillation_is_not_asked_what_belongs_to_rewards() -> None:
    without = make_config({"generator": "emoji-onestep", "rewards": {}, "steps": 40, "diagnose_every": 10})
    assert names([row(0), row(10, **UNHEALTHY[PULL])], without) == []
    start = make_config({"reference": "emoji-reference", "rewards": {}, "steps": 40, "diagnose_every": 10})
    assert names([row(0), row(10, **UNHEALTHY[COLOUR])], start) == []


def test_texts_say_what_to_do() -> None:
    for parts in UNHEALTHY.values():
        (one,) = find_warnings([row(0), row(10, **parts)], CONFIG)
        assert any(word in one.text for word in ("Lower ", "Raise "))
    (faster,) = find_warnings([row(0), row(10, **UNHEALTHY[PULL])], CONFIG)
    assert "300 times as hard" in faster.text
    (slower,) = find_warnings([row(0), row(10, pull={"ratio": 0.002, "cosine": 0.0})], CONFIG)
    assert "Raise reward_scale" in slower.text
    assert is_diagnosed(CONFIG) and not is_diagnosed(CONFIG.model_copy(update={"diagnose_every": 41}))


def test_limits_that_are_said_are_those_that_count() -> None:
    healthy = {diagnostic.name: diagnostic.healthy for diagnostic in all_diagnostics()}
    assert f"{distance.MOST:g}" in healthy[FAR]
    assert f"{lag.MOST:g}" in healthy[LAG]
    assert f"{pull.MOST:g}" in healthy[PULL]
    assert f"{abs(pull.LEAST_COSINE):g}" in healthy[OPPOSED]
    assert "no more above" in healthy[COLOUR]


ADDED = """
from dipp_toolkit.events import Warned
from dipp_toolkit.monitoring.diagnostic import Diagnostic, numbers

def warn(rows):
    return Warned(name="dark", text="Too dark. Lower it.") if numbers(rows, "darkness")[-1][1] > 0.5 else None

DIAGNOSTICS = (
    Diagnostic(
        name="dark", title="Darkness", reading="Share of dark pixels.", healthy="Below a half.", warn=warn,
        paths={"dark": ("darkness",)}, measure=lambda seen: {"darkness": float(seen.x0.mean())}, about_images=True,
    ),
)
"""


def test_a_file_is_all_that_a_further_diagnostic_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured by the training, warned of, charted in the report and heeded by the verdict."""
    (tmp_path / "zz_dark.py").write_text(ADDED)
    monkeypatch.setattr(diagnostics, "__path__", [*diagnostics.__path__, str(tmp_path)])
    all_diagnostics.cache_clear()
    try:
        assert "dark" in warnings_about_images()
        world = World(64, monkeypatch)
        added = all_diagnostics()[-1]
        assert added.measure(world.observe())["darkness"] == pytest.approx(float(world.probe.samples().mean()))
        rows = [row(0, darkness=0.1), row(10, darkness=0.9)]
        assert names(rows) == ["dark"]
        rows[-1]["warnings"] = [warning.model_dump() for warning in find_warnings(rows, CONFIG)]
        folder = write_run(tmp_path / "run", settings={"diagnose_every": 10})
        (folder / "diagnostics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
        report = write_report(folder).read_text()
        assert "Darkness" in report and "0.9 at step 10, from 0.1 at step 0." in report and "Too dark." in report
    finally:
        all_diagnostics.cache_clear()
        sys.modules.pop(f"{diagnostics.__name__}.zz_dark", None)


Run = Callable[..., Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a diagnosed run on a tiny pipeline, with a reward from a file."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "blue.py").write_text("def blueness(images, prompts):\n    return images[:, 2].mean((1, 2))\n")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    return {
        "reference": str(tiny_pipeline(folder / "reference")),
        "prompts": str(folder / "prompts.txt"),
        "rewards": {f"{folder}/blue.py:blueness": 1.0},
        "batch_size": 3,
        "eval_count": 3,
        "reference_steps": 2,
        "assistant_warmup": 1,
        "steps": 6,
        "diagnose_every": 2,
        "checkpoint_every": 3,
        "device": "cpu",
    }


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    """Run with some settings changed; returns the folder."""

    def start(name: str, listeners: Any = (), **changes: Any) -> Path:
        train(TrainConfig(**{**world, "out": tmp_path / name, **changes}), listeners=listeners)
        return tmp_path / name

    return start


class DiesAt:
    """Kills a run in one of its steps."""

    def __init__(self, step: int):
        self.step = step

    def dipp_on_step(self, event: Any) -> None:
        if event.step == self.step:
            raise KeyboardInterrupt


def unmeasured(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def test_looking_changes_nothing_and_resuming_goes_on_to_the_bit(run: Run) -> None:
    plain, whole = run("plain", diagnose_every=0), run("whole")
    assert unmeasured(plain) == unmeasured(whole)
    assert not (plain / "diagnostics.jsonl").exists()
    with pytest.raises(KeyboardInterrupt):
        run("cut", [DiesAt(5)])
    cut = run("cut", resume=True)
    lines = (whole / "diagnostics.jsonl").read_bytes()
    assert lines == (cut / "diagnostics.jsonl").read_bytes()
    rows = read_step_rows(whole / "diagnostics.jsonl")
    assert [item["step"] for item in rows] == [0, 2, 4, 6]
    assert "lag" not in rows[0] and all(math.isfinite(item["lag"]) for item in rows[1:])
    assert rows[-1]["pull"]["ratio"] > 0
    assert len(rows[0]["divergence"]["by_time"]) == BINS
    report = (whole / "report.html").read_text()
    assert "How the run went" in report and "How the run went" not in (plain / "report.html").read_text()
    for chart in ("Distance to the reference", "Distance by time", "lag", "Rewards over divergence", "Colours of"):
        assert chart in report, chart


def test_a_run_that_never_looks_at_the_assistant_says_what_is_left_out(run: Run) -> None:
    folder = run("alone", term="reward_only")
    rows = read_step_rows(folder / "diagnostics.jsonl")
    assert all("divergence" not in item and "pull" not in item for item in rows)
    assert all(item["colours"]["contrast"] > 0 for item in rows)
    report = (folder / "report.html").read_text()
    assert "The assistant was not trained in this run" in report
    assert "Distance to the reference" not in report


def test_few_steps_and_half_precision_are_diagnosed(run: Run) -> None:
    folder = run("few", generator_steps=2, precision="bf16", steps=2)
    assert [item["step"] for item in read_step_rows(folder / "diagnostics.jsonl")] == [0, 2]


def test_warnings_reach_summary_and_report(tmp_path: Path) -> None:
    settings = {"diagnose_every": 20}
    folder = write_run(tmp_path / "run", settings=settings)
    rows = [row(0), row(20, **UNHEALTHY[LAG])]
    rows[-1]["warnings"] = [warning.model_dump() for warning in find_warnings(rows, CONFIG)]
    (folder / "diagnostics.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    report = write_report(folder).read_text()
    assert "In 1 of them something had left its healthy range" in report
    assert report.count('class="warning"') == 1
    assert "moves faster than the assistant can follow" in report
    assert "0.4 at step 20" in report


def test_a_damaged_record_does_not_stop_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", settings={"diagnose_every": 20})
    (folder / "diagnostics.jsonl").write_text(
        json.dumps(row(0, divergence=None, lag="x", pull=[1], colours={"saturation": float("nan")}))
        + '\n{"step": 20, "la'
    )
    assert "How the run went" not in write_report(folder).read_text()


@pytest.mark.first_case
@pytest.mark.parametrize(
    ("changes", "warned"),
    # At 2e-3 the decoder's clamp, which pushes no pixel far out of the range, keeps the colours within bounds.
    [({}, False), ({"reward_scale": 1e5, "learning_rate": 2e-2}, True)],
    ids=["recommended", "out of control"],
)
def test_the_emoji_world_warns_of_a_bad_run_and_of_no_other(
    tmp_path: Path, changes: dict[str, Any], warned: bool
) -> None:
    config = make_config(
        {
            "generator": "emoji-onestep", "out": tmp_path / "run", "device": "cpu", "monitor_every": 0, "steps": 8,
            "diagnose_every": 4, "eval_count": 4, "reference_steps": 2, "batch_size": 8, **changes,
        }
    )  # fmt: skip
    folder = train(config).folder
    summary = json.loads((folder / "summary.json").read_text())
    if warned:
        assert len(set(summary["warned"]) & set(NAMES)) >= 2
    else:
        assert not set(summary["warned"]) & set(NAMES)


def test_a_condition_is_spread_over_all_prompts() -> None:
    _, q = laws()
    reference = GaussianReference(q, q, SCHEDULE, discrete_times(SCHEDULE))
    generator = AffineGenerator(AffineMap(torch.eye(3, dtype=torch.float64), q.mean))
    conditions: Condition = reference.encode([f"prompt {k}" for k in range(64)])
    probe = Probe(generator, conditions, 0, 8, bin_middles(0.02, 0.98, BINS))
    assert probe.chosen.prompts[::16] == ("prompt 0", "prompt 32")
    again = replace(probe)
    torch.testing.assert_close(again.z, probe.z, rtol=0, atol=0)
    assert not torch.equal(probe.noise(1), probe.noise(2))
