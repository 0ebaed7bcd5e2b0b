"""Several processes share a run: the weights of one with the whole batch, sharded checkpoints for any number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from launching import FSDP2, farthest, launch, trained, weights
from tiny import PROMPTS, tiny_pipeline

CLOSE = 1e-5
STEPS = 8


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("shared")
    tiny = str(tiny_pipeline(folder / "tiny"))
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    quick = ["eval_count=2", "reference_steps=1", "guidance=2", "checkpoint_every=4", "sample_every=1000"]
    quick += [f"prompt_cache={folder / 'cache'}"]
    return [
        "train", "--generator", tiny, "--reference", tiny, "--prompts", str(folder / "prompts.txt"),
        "--reward", "colourfulness", "--precision", "fp32", "--quiet",
        *[word for item in quick for word in ("--set", item)],
    ]  # fmt: skip


def steps(count: int = STEPS, batch: int = 4) -> list[str]:
    return ["--steps", str(count), "--batch-size", str(batch)]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with the whole batch."""
    return trained(tmp_path_factory.mktemp("whole") / "run", 1, [*words, *steps(batch=8)])


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_the_doubled_batch(
    words: list[str], whole: Path, tmp_path: Path
) -> None:
    shared = trained(tmp_path / "shared", 2, [*words, *steps()], "ddp.yaml")
    assert farthest(weights(shared), weights(whole)) < CLOSE
    one, two = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, shared)
    )
    assert len(two) == STEPS
    assert two[-1]["reward/colourfulness"] == pytest.approx(one[-1]["reward/colourfulness"], rel=1e-4)
    assert (shared / "report.html").is_file() and (shared / "before_after.png").is_file()


@pytest.mark.slow
def test_two_processes_give_the_adapters_of_one_with_the_doubled_batch(words: list[str], tmp_path: Path) -> None:
    lora = ["--mode", "lora", "--set", "lora_rank=4", "--set", "learning_rate=1e-4"]
    one = trained(tmp_path / "one", 1, [*words, *steps(batch=8), *lora])
    two = trained(tmp_path / "two", 2, [*words, *steps(), *lora])
    assert farthest(weights(two), weights(one)) < CLOSE


@pytest.mark.first_case
@pytest.mark.slow
@pytest.mark.parametrize(
    "strength",
    [
        pytest.param(["--balance", "normalised"], marks=pytest.mark.exhaustive, id="normalised"),
        pytest.param(["--pull", "0.5"], id="pull"),
    ],
)
def test_two_processes_mix_rewards_as_one(words: list[str], strength: list[str], tmp_path: Path) -> None:
    """Running statistics, a measured pull and a floor's multiplier are those of the whole batch."""
    mixed = [*strength, "--floor", "colourfulness=0.5"]
    one = trained(tmp_path / "one", 1, [*words, *steps(batch=8), *mixed])
    two = trained(tmp_path / "two", 2, [*words, *steps(), *mixed])
    assert farthest(weights(two), weights(one)) < CLOSE


@pytest.mark.slow
def test_sharded_checkpoints_resume_on_another_number_of_processes(
    words: list[str], whole: Path, tmp_path: Path
) -> None:
    """Four steps sharded over two, four more in one process with two passes: the weights of one from the start."""
    folder = trained(tmp_path / "run", 2, [*words, *steps(4)], "fsdp2.yaml")
    checkpoint = folder / "checkpoints" / "step-00000004"
    assert {path.name for path in checkpoint.glob("*.safetensors")} == {
        "state.safetensors", "state-00000-of-00002.safetensors", "state-00001-of-00002.safetensors",
    }  # fmt: skip
    # No process holds more than its part of the trained networks.
    parts = [path.stat().st_size for path in sorted(checkpoint.glob("state-*.safetensors"))]
    assert max(parts) < 0.6 * sum(parts) and (checkpoint / "state.safetensors").stat().st_size < min(parts)
    again = [*words, *steps(), "--resume", "--set", "accumulation=2"]
    trained(folder, 1, again)
    assert farthest(weights(folder), weights(whole)) < CLOSE


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_whole_checkpoint_resumes_sharded_over_three(words: list[str], tmp_path: Path) -> None:
    """Two batches of six in one process, then two of two in each of three."""
    folder = trained(tmp_path / "run", 1, [*words, *steps(2, batch=2), "--set", "accumulation=3"])
    straight = trained(tmp_path / "straight", 1, [*words, *steps(4, batch=2), "--set", "accumulation=3"])
    trained(folder, 3, [*words, *steps(4, batch=2), "--resume", "--set", "accumulation=1"], **FSDP2)
    assert farthest(weights(folder), weights(straight)) < CLOSE


@pytest.mark.slow
def test_a_reward_that_fails_in_one_process_ends_all_with_its_sentence(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(
        "import os\n\n\ncalls = []\n\n\ndef moody(images, prompts):\n    calls.append(1)\n"
        "    if os.environ.get('RANK') == '1' and len(calls) > 6:\n        raise ValueError('no more')\n"
        "    return images.mean((1, 2, 3))\n"
    )
    words = [*words, *steps(), "--reward", f"{tmp_path / 'moody.py'}:moody", "--out", str(tmp_path / "run")]
    done = launch(2, words)
    assert done.returncode != 0
    assert "failed with ValueError: no more" in done.stderr
    assert "Process 1 of 2 failed" in done.stderr
    assert "everything is saved" in done.stderr
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_the_launchers_precision_and_passes_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dipp_toolkit.config import make_config
    from dipp_toolkit.training.setup.resolve import resolve

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    config = resolve(make_config({"generator": "emoji-onestep"}))
    assert (config.precision, config.accumulation) == ("bf16", 4)
    said = resolve(make_config({"generator": "emoji-onestep", "precision": "fp32", "accumulation": 1}))
    assert (said.precision, said.accumulation) == ("fp32", 1)
    assert yaml.safe_load(config.to_yaml())["accumulation"] == 4


def test_the_first_version_of_fsdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dipp_toolkit.distributed import Processes
    from dipp_toolkit.distributed.sharding import Sharding
    from dipp_toolkit.errors import RequestError

    for name, value in {**FSDP2, "FSDP_VERSION": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Sharding.launched(Processes(), torch.device("cpu")) is None
    with pytest.raises(RequestError, match="expected FSDP 2"):
        Sharding.launched(Processes(0, 2), torch.device("cpu"))
