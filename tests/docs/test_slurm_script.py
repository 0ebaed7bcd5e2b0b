"""The Slurm script against stand-ins: interrupted ten minutes before its time, saved, queued again, finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tiny import PROMPTS, tiny_pipeline

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "operations" / "accelerate" / "train.sbatch"

STAND_INS = {
    # One task, as on one node; Slurm signals a step's tasks, not the script.
    "srun": 'SLURM_PROCID=0 "$@" &\necho $! > "$PLACE/task"\nwait $!\n',
    "scancel": 'echo "$@" >> "$PLACE/scancel"\nkill -TERM "$(cat "$PLACE/task")"\n',
    "scontrol": '[ "$1" = show ] && echo localhost\necho "$@" >> "$PLACE/scontrol"\n',
    "accelerate": 'exec "$PYTHON" -m accelerate.commands.accelerate_cli "$@"\n',
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the stand-ins, a tiny pipeline and prompts."""
    for name, body in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}")
        path.chmod(0o755)
    tiny_pipeline(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    shutil.copytree(ROOT / "docs" / "operations" / "accelerate", tmp_path / "docs" / "operations" / "accelerate")
    return tmp_path


def submit(place: Path, steps: int) -> subprocess.Popen[str]:
    """The script as Slurm runs it, on a node of two."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "plugins", "cli"))
    words = [
        "--generator", "tiny", "--reference", "tiny", "--prompts", "prompts.txt", "--reward", "colourfulness",
        "--device", "cpu", "--precision", "fp32", "--steps", str(steps), "--batch-size", "2", "--out", "run",
        "--set", "checkpoint_every=100000", "--set", "sample_every=100000", "--set", "eval_count=2",
        "--set", "reference_steps=1", "--set", "prompt_cache=cache",
    ]  # fmt: skip
    return subprocess.Popen(
        ["bash", str(SCRIPT), *words],
        cwd=place,
        env={
            **os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": paths, "PLACE": str(place),
            "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node",
            "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2",
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def rows(place: Path) -> list[dict[str, float]]:
    path = place / "run" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.is_file() else []


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_job_whose_time_is_up_is_saved_and_queued_again(place: Path) -> None:
    job = submit(place, 100_000)
    until = time.monotonic() + 200
    while len(rows(place)) < 3 and job.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=200)
    assert "everything is saved" in output, output[-3000:]
    assert job.returncode != 0
    assert (place / "scancel").read_text() == "--signal=TERM 7\n"
    assert (place / "scontrol").read_text().splitlines()[-1] == "requeue 7"
    done = len(rows(place))
    assert 3 <= done < 100_000
    assert (place / "run" / "checkpoints" / f"step-{done:08d}").is_dir()
    again = submit(place, done + 2)
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output[-3000:]
    assert [row["step"] for row in rows(place)] == list(range(1, done + 3))
    assert (place / "scontrol").read_text().count("requeue") == 1


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_the_launchers_files_are_accelerates_own(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    path = str(ROOT / "docs" / "operations" / "accelerate" / f"{name}.yaml")
    assert load_config_from_file(path).num_processes == 8
    words = ["--config_file", path, "--num_processes", "2", "-m", "dipp_cli", "train", "--seed", "1"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.num_processes == 2
    assert arguments.mixed_precision == "bf16"
    assert (arguments.multi_gpu, arguments.use_fsdp) == ((True, False) if name == "ddp" else (False, True))
    assert (arguments.module, arguments.training_script, arguments.training_script_args) == (
        True, "dipp_cli", ["train", "--seed", "1"],
    )  # fmt: skip
    if name == "fsdp2":
        assert arguments.fsdp_version == 2
        # Else transformers before 5 leaves weights out in every process but the first.
        assert not arguments.fsdp_cpu_ram_efficient_loading
        assert set(yaml.safe_load(Path(path).read_text())["fsdp_config"]) <= set(vars(arguments))
