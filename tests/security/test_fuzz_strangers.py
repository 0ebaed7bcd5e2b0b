"""Whatever comes over a line or lies in a stranger's folder: a value or a sentence, and never another error."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save
from starlette.exceptions import HTTPException

from dipp_toolkit.evaluation.comparison import INDEX, Comparison
from dipp_toolkit.experiments.bench.rows import Row, read_rows
from dipp_toolkit.experiments.leaderboard.board import make_board
from dipp_toolkit.experiments.leaderboard.check import check_files
from dipp_toolkit.experiments.leaderboard.markdown import to_markdown
from dipp_toolkit.experiments.leaderboard.page import render
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.report.run_files import read_metrics
from dipp_toolkit.rewards.isolated.frames import receive_frame
from dipp_toolkit.rewards.isolated.worker import Worker
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import connection, wire
from dipp_toolkit.rewards.remote.server import ServedReward
from dipp_toolkit.utils.jsonl import read_step_rows
from fake_rows import fake_row
from fuzzing import COUNTS, JSON, LEAST, LETTERS, NUMBERS, alone, answered, damaged, fuzz
from tiny import PROMPTS, tiny_pipeline


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with alone(tmp_path_factory.mktemp("strangers")):
        tiny_pipeline(Path("pipeline"))
        yield


# What comes over a line.

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
REQUEST = wire.encode_request(IMAGES, ["a cat", "日本"], True)
CONTENT = st.one_of(
    st.dictionaries(
        st.sampled_from(["kind", "protocol", "prompts", "gradients", "error", "differentiable", "device", "name", "x"]),
        st.one_of(
            JSON, st.sampled_from(["score", "scores", "load", "to", "error", "cpu", 1, True]), st.lists(st.just("a"))
        ),
        max_size=5,
    ),
    JSON,
)
DTYPES = (torch.float32, torch.float16, torch.float64, torch.uint8, torch.bool, torch.int64, torch.complex64)


def message(content: Any, shape: list[int], dtype: torch.dtype, name: str, fill: float) -> bytes:
    text = torch.frombuffer(bytearray(json.dumps(content).encode() or b" "), dtype=torch.uint8)
    return save({"message": text, name: torch.full(shape, fill).to(dtype)})


MESSAGES = st.one_of(
    st.binary(max_size=100),
    damaged(REQUEST),
    damaged(wire.encode_scores(torch.ones(2), IMAGES)),
    st.builds(
        message,
        CONTENT,
        st.lists(st.integers(0, 4), max_size=5),
        st.sampled_from(DTYPES),
        st.sampled_from(["images", "scores", "gradients", "x"]),
        st.sampled_from([0.0, 0.5, 1e38, float("nan"), float("-inf")]),
    ),
    st.builds(
        lambda prompts, gradients, count: message(
            {"kind": "score", "protocol": 1, "prompts": prompts, "gradients": gradients},
            [count, 3, 4, 4], torch.float32, "images", 0.5,
        ),
        st.lists(st.text(LETTERS, max_size=5), max_size=3), st.booleans(), st.integers(0, 3),
    ),
)  # fmt: skip
SHARPNESS = load_reward("sharpness")


@fuzz(150, 1500, data=MESSAGES)
def test_server_bodies(data: bytes) -> None:
    try:
        scores, _ = wire.decode_scores(wire.decode(ServedReward("sharpness", SHARPNESS).score(data)), IMAGES.shape)
        assert bool(torch.isfinite(scores).all())
    except HTTPException as error:
        assert error.status_code == 400 and error.detail and "\n" not in error.detail and len(error.detail) < 3000
    except wire.ProtocolError as error:
        assert "as scores; expected" in str(error) or "as gradients; expected" in str(error)  # of another batch's size


@fuzz(100, 1000, data=MESSAGES)
def test_workers_and_answers(data: bytes) -> None:
    paths = list(sys.path)
    worker = Worker()
    worker.name, worker.reward = "sharpness", SHARPNESS
    reply = wire.decode(worker.answer(data))
    sys.path[:] = paths
    assert reply.kind in ("error", "ready", "scores") and len(wire.error_of(reply) or "") < 3000
    found = answered(lambda: wire.decode(data))
    if found is not None:
        wire.error_of(found)
        answered(lambda: wire.decode_scores(found, IMAGES.shape))
        answered(lambda: wire.differentiable_of(found.content))
    answered(lambda: connection._sentence(data))


@fuzz(
    60,
    600,
    data=st.one_of(st.binary(max_size=40), st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little") + b"x")),
)
def test_frames(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            while (found := receive_frame(ours, 100)) is not None:
                assert len(found) <= 100
        except (wire.ProtocolError, ConnectionResetError) as error:
            assert str(error)


# Folders and results of strangers.


FILES = ("model_index.json", "scheduler/scheduler_config.json", "transformer/config.json", "vae/config.json")
KEYS = (
    "_class_name", "transformer", "vae", "scheduler", "text_encoder", "tokenizer", "prediction_type", "beta_start",
    "beta_end", "beta_schedule", "timestep_spacing", "num_train_timesteps", "sample_size", "latent_channels", "x",
    "../x", "shift", "original_inference_steps", "shift_terminal", "trained_betas", "use_dynamic_shifting",
)  # fmt: skip


@fuzz(
    20,
    400,
    name=st.sampled_from(FILES),
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3),
    content=st.one_of(st.none(), st.none(), JSON),
)
def test_pipelines(name: str, changes: dict[str, Any], content: Any) -> None:
    path = Path("pipeline") / name
    kept = path.read_text()
    path.write_text(json.dumps({**json.loads(kept), **changes} if content is None else content))
    try:
        answered(lambda: family_of(Path("pipeline")))
        answered(lambda: load_generator("./pipeline"))
        answered(lambda: load_reference("./pipeline"))
    finally:
        path.write_text(kept)


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A nested value with one thing inside of it exchanged."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    inner = changed(value[key], path[1:], new)
    return {**value, key: inner} if isinstance(value, dict) else [*value[:key], inner, *value[key + 1 :]]


PLACES = st.lists(st.integers(0, 20), min_size=1, max_size=4)


@fuzz(80, 900, places=st.lists(PLACES, max_size=3), new=st.one_of(JSON, NUMBERS))
def test_results(places: list[list[int]], new: Any) -> None:
    rows = [fake_row("a", 0.0).model_dump(mode="json"), fake_row("b", 1.0, seed=1).model_dump(mode="json")]
    for place in places:
        rows[0] = changed(rows[0], place, new)
    path = Path("results.jsonl")
    try:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    except ValueError:  # more digits than JSON's writer takes
        return
    check_files([path])
    found: list[Row] | None = answered(lambda: read_rows(path))
    board = answered(lambda: make_board(found)) if found else None
    if board is not None:
        answered(lambda: to_markdown(board))
        answered(lambda: render(board, "title"))


@fuzz(60, 600, places=st.lists(PLACES, max_size=3), new=JSON, data=st.one_of(st.none(), st.binary(max_size=40)))
def test_run_files(places: list[list[int]], new: Any, data: bytes | None) -> None:
    Comparison(PROMPTS[:1], [1, 2], {"before": torch.zeros(1, 2, 3, 4, 4)}).save(Path("comparison"))
    index = json.loads((Path("comparison") / INDEX).read_text())
    for place in places:
        index = changed(index, place, new)
    (Path("comparison") / INDEX).write_bytes(json.dumps(index).encode() if data is None else data)
    answered(lambda: Comparison.load(Path("comparison")))
    for line in (json.dumps(new).encode(), data or b""):
        Path("metrics.jsonl").write_bytes(b'{"step": 1, "a": 2.0}\n' + line + b"\n")
        answered(lambda: read_metrics(Path("metrics.jsonl")))
        answered(lambda: read_step_rows(Path("metrics.jsonl")))


@pytest.mark.exhaustive
def test_there_were_ten_thousand_cases() -> None:
    """The last test of the file: it counts what the others have tried."""
    print(f"{sum(COUNTS.values())} cases: " + ", ".join(f"{name[5:]} {count}" for name, count in COUNTS.items()))
    assert sum(COUNTS.values()) >= LEAST
