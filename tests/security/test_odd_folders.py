"""Folders and files that are not what they say: pipes, devices, sizes that nothing has; and secrets in addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipp_cli.app import main
from dipp_toolkit import load_generator, load_prompts, load_reference
from dipp_toolkit.config import make_config
from dipp_toolkit.errors import RequestError, RunError, first_line, without_secrets
from dipp_toolkit.models.files.folders import MOST_TIMES, check_files
from dipp_toolkit.models.text_encoders import PromptEncoder
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.training.setup.name_checks import check_names
from dipp_toolkit.utils.json_files import read_bytes, read_json
from dipp_toolkit.utils.messages import quoted, shown

PLACES = (
    "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json",
    "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json", "vae/config.json", "unet/extra.json",
)  # fmt: skip


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_twin("StableDiffusionPipeline", tmp_path / "sd")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2**40)


@pytest.mark.parametrize("make", [pipe, device, huge])
@pytest.mark.parametrize("place", PLACES)
def test_a_pipeline_of_files_alone(pipeline: Path, place: str, make: Callable[[Path], None]) -> None:
    make(pipeline / place)
    for load in (load_reference, load_generator):
        with pytest.raises(
            RequestError, match=r"expected a regular file|bytes; expected|neither model_index\.json nor"
        ):
            load(str(pipeline))


def test_links_to_files_are_files(pipeline: Path, tmp_path: Path) -> None:
    """As in the hub's cache, whose folders are links to blobs."""
    for path in list(pipeline.glob("*/*")):
        blob = tmp_path / f"blob-{path.parent.name}-{path.name}"
        path.rename(blob)
        path.symlink_to(blob)
    check_files(pipeline)
    (pipeline / "nothing.json").symlink_to(tmp_path / "missing")
    check_files(pipeline)
    assert load_generator(str(pipeline)).latent_shape == (4, 8, 8)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe(tmp_path / "x.json")
    with pytest.raises(RequestError, match="is a pipe; expected a regular file"):
        read_json(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("[1]")
    with pytest.raises(RequestError, match="holds a list; expected a JSON object"):
        read_json(tmp_path / "y.json")
    with pytest.raises(RequestError, match="has 3 bytes; expected 2 at most"):
        read_bytes(tmp_path / "y.json", 2)
    with pytest.raises(RequestError, match="No such file or directory"):
        read_json(tmp_path / "z.json")
    with pytest.raises(RequestError, match="Is a directory"):
        read_json(tmp_path)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("count", [10**9, 0, -1, 1e300])
def test_training_times_that_no_schedule_has(pipeline: Path, count: float) -> None:
    edit(pipeline / "scheduler" / "scheduler_config.json", num_train_timesteps=count)
    for load in (load_reference, load_generator):
        with pytest.raises(
            RequestError, match=f"has num_train_timesteps=.*expected a whole number from 1 to {MOST_TIMES:,}"
        ):
            load(str(pipeline))


@pytest.mark.parametrize("side", [10**6, [10**9, 1], 10**30, 2**14])
def test_latents_that_nothing_has(pipeline: Path, side: Any) -> None:
    edit(pipeline / "unet" / "config.json", sample_size=side)
    for load in (load_reference, load_generator):
        with pytest.raises(RequestError, match=r"give latents of the shape .*see sample_size in unet"):
            load(str(pipeline))


@pytest.mark.parametrize("said", [None, 10**30, 0, -3, "many", 1000])
def test_a_tokenizer_without_a_length_has_its_encoders(pipeline: Path, said: Any) -> None:
    path = pipeline / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length")
    path.write_text(json.dumps(config if said is None else config | {"model_max_length": said}))
    encoder = load_reference(str(pipeline)).encoder
    assert isinstance(encoder, PromptEncoder)
    assert encoder.load().tokenizer.model_max_length == 77
    assert encoder.encode(["a fox"]).tensors["encoder_hidden_states"].shape == (1, 77, 16)
    with pytest.raises(RequestError, match=r"tokens, and the text encoder reads 77\."):
        encoder.encode(["fox " * 100])


def test_a_shorter_tokenizer_stays_short(pipeline: Path) -> None:
    edit(pipeline / "tokenizer" / "tokenizer_config.json", model_max_length=9)
    assert load_reference(str(pipeline)).encoder.load().tokenizer.model_max_length == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet", "txt", "csv"])
def test_prompts_of_a_device(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p.{ending}"
    path.symlink_to("/dev/zero")
    with pytest.raises(RequestError, match="is a device; expected a file of prompts"):
        load_prompts(str(path))


def parquet(path: Path, values: Any, **options: Any) -> Path:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.table({"prompt": values, "id": list(range(len(values)))}), path, **options)
    return path


def test_a_small_parquet_that_says_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "p.parquet", ["a" * 2**22], compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 4000
    monkeypatch.setattr("dipp_toolkit.prompts.files.LARGE", 2**20)
    with pytest.raises(RequestError, match=r"[\d,]+ bytes of it become [\d,]+, which is not plausible for prompts"):
        load_prompts(str(path))


def test_one_long_text_in_many_rows(tmp_path: Path) -> None:
    """A dictionary and a run of rows take few bytes; the rows would take two gigabytes."""
    import pyarrow

    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000), ["a" * (2**20 + 1)])
    path = parquet(tmp_path / "p.parquet", rows, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(RequestError, match="has 1,048,577 characters; expected 1,048,576 at most"):
        load_prompts(str(path))
    path = parquet(tmp_path / "q.parquet", ["fox", "fox", "cake"] * 100)
    assert [(prompt.text, prompt.id) for prompt in load_prompts(str(path)).prompts][298:] == [
        ("fox", "298"),
        ("cake", "299"),
    ]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 4000000000000 bytes. Error code 12"), "3,725.3 GiB of memory"),
        (MemoryError("malloc of size 2147483712 failed"), "2.0 GiB of memory"),
        (MemoryError(), "more memory than is free"),
    ],
)  # fmt: skip
def test_an_allocators_error_says_what_it_means(error: Exception, sentence: str) -> None:
    assert sentence in first_line(error)


SECRETS = (
    "http://host:8700/hps?token=SECRET",
    "https://me:SECRET@host/hps",
    "https://SECRET@host/hps",
    "http://host/hps#access_token=SECRET",
    "http://host/a?b=c&token=SECRET&d=e",
)


@pytest.mark.parametrize("address", SECRETS)
def test_a_secret_in_an_address_is_in_no_message(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = OSError(f"cannot reach '{address}' today")
    sentence = str(RunError(f"No: {address}."))
    for text in (without_secrets(address), shown(address), quoted(address), sentence, first_line(library)):
        assert "SECRET" not in text
        assert "host" in text
    named: list[dict[str, Any]] = [
        {"rewards": {address: 1.0}},
        {"floors": {address: 1.0}},
        {"monitor_rewards": [address]},
    ]
    for settings in (*named, *({name: address} for name in ("judge", "prompts", "decoder", "generator"))):
        with pytest.raises(RequestError) as refused:
            check_names(make_config(settings))
        assert "SECRET" not in str(refused.value)
    monkeypatch.chdir(tmp_path)
    lines = (
        ["train", "--reward", address],
        ["train", "--set", f"precision={address}"],
        ["train", "--config", address],
        ["reward", "check", address],
        ["bench", "--generators", "emoji-onestep", "--rewards", address],
        ["generate", "--generator", address, "--prompt", "x"],
        ["score", "--reward", address, "."],
        [address],
    )
    for words in lines:
        assert main(words) == 2
        printed = capsys.readouterr()
        assert "SECRET" not in printed.out + printed.err, words
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    "text", ["see https://host/a/b. Then?", "is it http://host/x? No", "a://b", "C: d@e", "#x=y ?z"]
)
def test_plain_addresses_stay(text: str) -> None:
    assert without_secrets(text) == text
