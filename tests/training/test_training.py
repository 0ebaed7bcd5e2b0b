"""The training run: same seed, same bits; stopping and going on changes nothing; what a run leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from dipp_toolkit import RequestError, TrainConfig, load_generator, load_reference
from dipp_toolkit.errors import CheckpointError, Interrupted
from dipp_toolkit.events import CheckpointEvent, StepEvent
from dipp_toolkit.models.sampling import fixed_noise
from dipp_toolkit.prompts.sampler import PromptOrder
from dipp_toolkit.training.ema import WeightAverage
from dipp_toolkit.training.run import RunResult, learning_rate, train
from tiny import PROMPTS, tiny_pipeline
from tiny_runs import BLUE, StopAt, assert_same_bits, metrics


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run on a tiny pipeline, with a reward from a file."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "blue.py").write_text(BLUE)
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
        "checkpoint_every": 20,
        "sample_every": 20,
        "device": "cpu",
    }


def test_the_learning_rate_rises_holds_and_falls() -> None:
    config = TrainConfig(steps=10, learning_rate=1.0, warmup=3, cooldown=4)
    rates = [learning_rate(config, step) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert [learning_rate(TrainConfig(steps=3, learning_rate=1.0), step) for step in range(3)] == [1, 1, 1]
    assert min(learning_rate(TrainConfig(steps=3, warmup=9, cooldown=9), step) for step in range(3)) > 0


Run = Callable[..., RunResult]


@pytest.fixture
def run(world: dict[str, Any], tmp_path: Path) -> Run:
    def start(name: str, listeners: tuple[object, ...] = (), **settings: Any) -> RunResult:
        return train(TrainConfig(**(world | {"out": tmp_path / name} | settings)), listeners=listeners)

    return start


class KilledError(BaseException):
    """Stands for a kill: nothing after it runs."""


class DieAfterCheckpoint:
    """Ends the run a few steps after a checkpoint, so that steps past it are lost."""

    def __init__(self, step: int, later: int):
        self.step, self.later, self.seen = step, later, False

    def dipp_on_checkpoint(self, event: CheckpointEvent) -> None:
        self.seen = self.seen or event.step == self.step

    def dipp_on_step(self, event: StepEvent) -> None:
        if self.seen and event.step == self.step + self.later:
            raise KilledError


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(run: Run) -> None:
    a, b, c = run("a", steps=6), run("b", steps=6), run("c", steps=6, seed=1)
    assert_same_bits(a.folder, b.folder, 6)
    assert metrics(a.folder) != metrics(c.folder)


def test_forty_steps_equal_twenty_killed_and_resumed(run: Run) -> None:
    whole = run("whole", steps=40)
    with pytest.raises(KilledError):
        run("parts", steps=40, listeners=(DieAfterCheckpoint(20, 3),))
    folder = whole.folder.parent / "parts"
    assert len(metrics(folder)) == 23, "steps past the checkpoint were logged before the kill"
    parts = run("parts", steps=40, resume=True)
    assert_same_bits(whole.folder, parts.folder, 40)
    assert parts.summary["rewards"] == whole.summary["rewards"]


@pytest.mark.first_case
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_resuming_gives_the_same_bits(run: Run, number: signal.Signals) -> None:
    whole, before = run("whole", steps=8), signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"after step 5 of 8.*--resume"):
        run("parts", steps=8, listeners=(StopAt(5, number),))
    assert signal.getsignal(number) is before, "our handler is taken away again"
    assert_same_bits(whole.folder, run("parts", steps=8, resume=True).folder, 8)


def test_a_signal_in_the_last_step_or_after_it_is_honoured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted, match=r"by SIGTERM\. Step 4 is saved\. Go on with: dipp train --resume"):
        run("parts", steps=4, listeners=(StopAt(4, signal.SIGTERM),))
    for where in ("save_generator", "reference_images", "score_columns", "write_model_card"):

        def ask(*given: Any, **named: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it waits")

        with monkeypatch.context() as patch, pytest.raises(Interrupted, match=r"by SIGINT.+Step 4 is saved"):
            patch.setattr(f"dipp_toolkit.training.finishing.{where}", ask)
            run("parts", steps=4, resume=True)
    assert_same_bits(run("whole", steps=4).folder, run("parts", steps=4, resume=True).folder, 4)


def test_a_signal_before_the_first_step_is_honoured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*given: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it waits")

    for where, said in (("assemble", "before anything was written"), ("start_comparison", "No step was saved yet")):
        with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"by SIGTERM.*{said}"):
            patch.setattr(f"dipp_toolkit.training.run.{where}", ask)
            run(where, steps=2)


@pytest.mark.first_case
@pytest.mark.parametrize("damage", ["sheet", "cut sheet", "index"])
def test_pictures_from_before_that_were_lost_are_made_again(run: Run, damage: str) -> None:
    folder = run("parts", steps=2).folder
    pictures = folder / "samples" / "comparison"
    sheet, index = pictures / "before-000.png", pictures / "comparison.json"
    whole = sheet.read_bytes()
    if damage == "index":
        index.write_text(index.read_text()[:40])
    elif damage == "sheet":
        sheet.unlink()
    else:
        sheet.write_bytes(whole[: len(whole) // 2])
    noticed: list[bool] = []

    class Look:
        def dipp_on_run_start(self, event: Any) -> None:
            noticed.append(sheet.read_bytes() == whole)

    summary = run("parts", steps=4, resume=True, listeners=(Look(),)).summary
    assert noticed == [True], "before the first step, not at the end"
    assert any("were made again, by the generator the run began with" in item for item in summary["warnings"])
    assert_same_bits(run("whole", steps=4).folder, folder, 4)


def test_resuming_before_the_first_checkpoint_starts_over(run: Run) -> None:
    with pytest.raises(KilledError):
        run("parts", steps=6, checkpoint_every=100, listeners=(type("L", (), {"dipp_on_step": _die_at_two})(),))
    assert_same_bits(run("whole", steps=6).folder, run("parts", steps=6, resume=True).folder, 6)


def _die_at_two(self: object, event: StepEvent) -> None:
    if event.step == 2:
        raise KilledError


def test_a_finished_run_goes_on_with_more_steps(run: Run) -> None:
    run("run", steps=4)
    longer = run("run", steps=6, resume=True)
    assert [row["step"] for row in metrics(longer.folder)] == [1, 2, 3, 4, 5, 6]


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(run: Run) -> None:
    folder = run("run", steps=6, checkpoint_every=3).folder
    newest = folder / "checkpoints" / "step-00000006" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    again = run("run", steps=6, checkpoint_every=3, resume=True)
    assert any("damaged" in item and "step-00000006" in item for item in again.summary["warnings"])


def test_resume_refuses_other_settings_foreign_and_wholly_damaged_folders(run: Run, tmp_path: Path) -> None:
    folder = run("run", steps=2).folder
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.001 and is 0.002"):
        run("run", steps=2, resume=True, learning_rate=2e-3)
    with pytest.raises(CheckpointError, match="at step 2 already"):
        run("run", steps=1, resume=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"not a run folder"):
        run("foreign", steps=2, resume=True)
    (folder / "checkpoints" / "step-00000002" / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        run("run", steps=2, resume=True)
    with pytest.raises(RequestError, match="not empty"):
        run("foreign", steps=2)
    assert sorted(path.name for path in (tmp_path / "foreign").iterdir()) == ["notes.txt"]


def test_a_run_leaves_what_it_promises_and_the_export_is_the_generator(run: Run, world: dict[str, Any]) -> None:
    result = run("run", steps=4, checkpoint_every=1, keep_checkpoints=2, sample_every=2)
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "begun.json", "config.yaml", "metrics.jsonl", "samples", "checkpoints", "final", "summary.json", "report.html",
        "before_after.png",
    }  # fmt: skip
    assert sorted(path.name for path in (result.folder / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
    assert {"step-00000000.png", "step-00000002.png", "step-00000004.png"} <= {
        path.name for path in (result.folder / "samples").iterdir()
    }
    reference, generator = load_reference(world["reference"]), load_generator(str(result.folder))
    noise = fixed_noise(1, generator.latent_shape, seed=5)
    with torch.no_grad():
        ours = generator.generate(noise, reference.encode(["a red cat"]))
    pipeline = DiffusionPipeline.from_pretrained(result.folder / "final")
    theirs = pipeline(
        "a red cat",
        num_inference_steps=1,
        guidance_scale=1.0,
        latents=noise,
        use_resolution_binning=False,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    name = next(iter(world["rewards"]))
    assert result.summary["rewards"][name]["before"]["low"] <= result.summary["rewards"][name]["before"]["mean"]
    picture = result.summary["picture"]
    assert (picture["by"], picture["role"]) == ([name], "trained") and 0 <= picture["better"]["mean"] <= 1
    assert len(picture["gained"]) == picture["prompts"] and picture["drawn"] == []


def test_a_reward_from_a_file_is_maximised(run: Run, world: dict[str, Any]) -> None:
    name = next(iter(world["rewards"]))
    summary = run("run", steps=40, reward_scale=20.0, ema=0.5, batch_size=8).summary
    assert summary["rewards"][name]["after"]["low"] > summary["rewards"][name]["before"]["high"]
    assert summary["gain"][name]["low"] > 0


def test_training_goes_on_from_a_run_folder_with_its_assistant(run: Run) -> None:
    first = run("first", steps=3)
    assert (first.folder / "final" / "assistant").is_dir()
    second = run("second", steps=2, generator=str(first.folder))
    assert second.summary["generator"] == str(first.folder)


def test_distillation_needs_no_reward_and_full_precision_is_not_required(run: Run) -> None:
    summary = run("run", steps=3, rewards={}, precision="bf16").summary
    assert summary["rewards"] == {}
    assert summary["judge"] is None


def test_the_average_is_applied_and_taken_away() -> None:
    network = torch.nn.Linear(2, 2)
    average = WeightAverage(network, 0.5)
    start = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.add_(1)
    average.update()  # decay min(0.5, 1/10)
    with average.applied():
        torch.testing.assert_close(network.weight.detach(), start + 0.9)
    torch.testing.assert_close(network.weight.detach(), start + 1)


def test_prompt_order_visits_everything_each_epoch_from_any_position() -> None:
    order = PromptOrder(7, seed=3)
    everything = order.take(0, 21)
    assert all(sorted(everything[k : k + 7]) == list(range(7)) for k in (0, 7, 14))
    assert order.take(5, 9) == everything[5:14]
    assert everything[:7] != everything[7:14]
    assert PromptOrder(7, seed=4).take(0, 21) != everything
