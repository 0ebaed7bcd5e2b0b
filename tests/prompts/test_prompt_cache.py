"""Prompts encoded once: resumable, keyed by encoder and text, enough to train without a text encoder."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load

from dipp_cli.app import main
from dipp_toolkit import TrainConfig, load_reference
from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import RequestError
from dipp_toolkit.models.files.folders import family_of
from dipp_toolkit.models.text_encoders import PromptEncoder
from dipp_toolkit.models.tiny_pipelines import write_twin
from dipp_toolkit.prompts import cache as prompt_cache
from dipp_toolkit.prompts import dataset
from dipp_toolkit.prompts.cache import NAME, CachedConditions, PromptCache, digest_of, encoder_folder
from dipp_toolkit.prompts.conditions import encode_prompts
from dipp_toolkit.training.run import train
from tiny import PROMPTS

CLASSES = ("PixArtAlpha", "StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return write_twin("StableDiffusionXLPipeline", tmp_path / "twin")


def encoder_of(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder, family_of(folder))


def kept(folder: Path, prompts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """What the cache's file holds of each prompt."""
    query = "SELECT tensors FROM prompts WHERE digest = ?"
    with closing(sqlite3.connect(folder / NAME)) as database:
        return [load(database.execute(query, (digest_of(prompt),)).fetchone()[0]) for prompt in prompts]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_comes_back_is_what_was_encoded(folder: Path, tmp_path: Path) -> None:
    encoder = encoder_of(folder)
    cache = PromptCache(tmp_path / "cache")
    assert cache.encode(encoder, [*PROMPTS, PROMPTS[0]], chunk=3) == len(PROMPTS)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [NAME]
    again = PromptCache(tmp_path / "cache")
    order = [PROMPTS[2], PROMPTS[0], PROMPTS[2]]
    read, direct = again.read(order), encoder.encode(order)
    assert read.prompts == tuple(order)
    for name, tensor in direct.tensors.items():
        torch.testing.assert_close(read.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    rows = CachedConditions(PROMPTS, again, torch.device("cpu"))
    assert rows[[1, 3]].prompts == (PROMPTS[1], PROMPTS[3])
    assert rows[1:3].prompts == PROMPTS[1:3]
    assert len(rows) == len(PROMPTS)


def test_encoding_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = encoder_of(folder), []
    original = PromptEncoder.encode

    def failing(self: PromptEncoder, prompts: list[str]) -> object:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(tuple(prompts))
        return original(self, prompts)

    monkeypatch.setattr(PromptEncoder, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        PromptCache(tmp_path / "cache").encode(encoder, PROMPTS, chunk=1)
    monkeypatch.setattr(PromptEncoder, "encode", original)
    assert PromptCache(tmp_path / "cache").encode(encoder, PROMPTS, chunk=1) == len(PROMPTS) - 2
    assert PromptCache(tmp_path / "cache").encode(encoder, PROMPTS) == 0
    assert not list((tmp_path / "cache").glob(".*"))


def test_encoding_streams(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One chunk at a time, repetitions passed over, in the chunks that a list would have given."""
    encoder, given, sizes, chunks = encoder_of(folder), [], [], []
    original = PromptEncoder.encode

    def encode(self: PromptEncoder, prompts: list[str]) -> Condition:
        sizes.append((len(given), len(prompts)))
        chunks.append(tuple(prompts))
        return original(self, prompts)

    def prompts() -> Iterator[str]:
        for k in range(20):
            given.append(k)
            yield f"a cat {k % 15}"

    monkeypatch.setattr(PromptEncoder, "encode", encode)
    cache, messages = PromptCache(tmp_path / "cache"), []
    cache.add(original(encoder, ["a cat 2", "a cat 3"]))
    assert cache.encode(encoder, prompts(), 4, lambda *numbers: messages.append(numbers)) == 13
    assert sizes == [(8, 4), (12, 4), (16, 4), (20, 1)] and messages == [(8, 4), (12, 8), (16, 12), (20, 13)]
    assert tuple(f"a cat {k}" for k in (0, 1, 4, 5)) in chunks and ("a cat 14",) in chunks
    assert cache.encode(encoder, prompts(), 4) == 0


def test_the_command_counts_different_prompts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset, "HELD_PROMPTS", 0)
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS + PROMPTS[:2]))
    words = ["prompts", "encode", "--reference", str(folder), "--prompts", str(tmp_path / "p.txt"), "--device", "cpu"]
    assert main([*words, "--cache", str(tmp_path / "cache"), "--json", "--chunk", "2"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["prompts"], result["encoded"]) == (len(PROMPTS) + 1, len(PROMPTS) + 1)
    assert "7 of 7 prompts done, 5 of them encoded now" in printed.err


def test_another_encoder_has_another_folder(folder: Path, tmp_path: Path) -> None:
    other = write_twin("StableDiffusionXLPipeline", tmp_path / "other", seed=1)
    first, second = (encoder_folder(tmp_path / "cache", encoder_of(place)) for place in (folder, other))
    assert first != second
    assert first.parent == second.parent
    for place in (first, second):
        PromptCache(place).encode(encoder_of(folder), PROMPTS)
    (next((folder / "text_encoder").glob("*.safetensors"))).unlink()
    with pytest.raises(RequestError, match="Fetch the weights"):
        encoder_folder(tmp_path / "cache", encoder_of(folder))


@pytest.mark.parametrize("edited", ["text_encoder/model.safetensors", "tokenizer/merges.txt"])
def test_any_byte_of_an_encoder_or_its_tokenizer_makes_another_folder(
    folder: Path, tmp_path: Path, edited: str
) -> None:
    path = folder / edited
    path.touch()
    before = encoder_folder(tmp_path / "cache", encoder_of(folder))
    content = bytearray(path.read_bytes() + b" ")
    content[len(content) * 2 // 5] ^= 1
    path.write_bytes(content)
    after = encoder_folder(tmp_path / "cache", encoder_of(folder))
    assert (before.parent == after.parent) and before != after


def test_a_cache_of_an_older_version_is_not_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embeddings may be of another encoder or of other settings; nobody is given them, with or without weights."""
    new = encoder_folder(tmp_path / "cache", encoder_of(folder))
    monkeypatch.setattr(prompt_cache, "FORMAT", 2)
    old = encoder_folder(tmp_path / "cache", encoder_of(folder))
    old.mkdir(parents=True)
    (old / "0123.safetensors").write_bytes(b"a chunk of embeddings")
    (old / "index.sqlite").write_bytes(b"an index of chunks")
    monkeypatch.undo()
    assert encoder_folder(tmp_path / "cache", encoder_of(folder)) == new != old
    for name in ("text_encoder", "text_encoder_2"):
        for file in (folder / name).glob("*.safetensors"):
            file.unlink()
    assert not encoder_folder(tmp_path / "cache", encoder_of(folder)).exists()
    new.mkdir(parents=True)
    assert encoder_folder(tmp_path / "cache", encoder_of(folder)) == new


def test_two_sizes_share_a_cache_and_each_is_told_its_own(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    edit(other / "unet/config.json", sample_size=[8, 16])
    places = [encoder_folder(tmp_path / "cache", encoder_of(place)) for place in (folder, other)]
    assert places[0] == places[1]
    for place, sizes in ((folder, [16, 16, 0, 0, 16, 16]), (other, [16, 32, 0, 0, 16, 32])):
        reference, config = load_reference(str(place)), TrainConfig(prompt_cache=tmp_path / "cache")
        conditions, held_out = encode_prompts(reference, config, PROMPTS, PROMPTS[:1], torch.device("cpu"))
        for condition in (conditions[:1], held_out, reference.null(1), reference.encode(["a cat"])):
            assert condition.tensors["time_ids"].tolist() == [sizes]
    assert kept(places[0], PROMPTS[:1])[0].keys() == {"encoder_hidden_states", "text_embeds"}


def test_another_empty_prompt_is_another_cache(folder: Path, tmp_path: Path) -> None:
    """SDXL's null condition is zeros or an encoded empty text, as the pipeline's index says."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    edit(other / "model_index.json", force_zeros_for_empty_prompt=False)
    norms = []
    for place in (folder, other):
        cache = PromptCache(encoder_folder(tmp_path / "cache", encoder_of(place)))
        assert cache.encode(encoder_of(place), [*PROMPTS, ""]) == len(PROMPTS) + 1
        norms.append(cache.read([""]).tensors["encoder_hidden_states"].norm().item())
    assert norms[0] == 0 and norms[1] > 1


def test_another_number_of_tokens_is_another_cache(tmp_path: Path) -> None:
    encoder = encoder_of(write_twin("FluxPipeline", tmp_path / "flux"))
    whole = encoder_folder(tmp_path / "cache", encoder)
    encoder.family = replace(cast(Any, encoder.family), max_tokens=16)
    assert encoder_folder(tmp_path / "cache", encoder).parent != whole.parent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [f"{name}Pipeline" for name in CLASSES])
def test_every_precision_comes_back_to_the_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = write_twin(name, tmp_path / "twin")
    encoder = PromptEncoder(folder, family_of(folder), dtype)
    prompts = [*PROMPTS, ""]
    cache = PromptCache(tmp_path / "cache")
    cache.encode(encoder, prompts)
    read, direct = cache.read(prompts), encoder.encode(prompts)
    assert read.tensors.keys() == direct.tensors.keys()
    for key, tensor in direct.tensors.items():
        assert read.tensors[key].dtype == tensor.dtype != dtype or dtype == torch.float32
        assert torch.equal(read.tensors[key], tensor)
    rows = kept(tmp_path / "cache", prompts)
    assert {value.dtype for row in rows for value in row.values() if value.is_floating_point()} == {dtype}
    if name == "PixArtAlphaPipeline":
        tokens = int(direct.tensors["encoder_attention_mask"].sum())
        lengths = sum(len(row["encoder_hidden_states"]) for row in rows)
        assert lengths == tokens < direct.tensors["encoder_attention_mask"].numel()


def test_a_masked_token_changes_nothing_so_that_zeros_stand_for_it(tmp_path: Path) -> None:
    reference = load_reference(str(write_twin("PixArtAlphaPipeline", tmp_path / "twin")))
    zeros = reference.encode(PROMPTS)
    mask = zeros.tensors["encoder_attention_mask"][..., None] == 0
    hidden = zeros.tensors["encoder_hidden_states"]
    assert mask.any() and hidden.masked_select(mask).eq(0).all()
    noisy = Condition(PROMPTS, {**zeros.tensors, "encoder_hidden_states": hidden + mask * torch.randn_like(hidden)})
    x, t = torch.randn(len(PROMPTS), *reference.latent_shape), torch.full((len(PROMPTS),), 0.5)
    clean, other = (reference.denoiser.predict_x0(x, t, condition) for condition in (zeros, noisy))
    assert torch.equal(clean, other)


def test_rows_are_kept_without_the_zeros_they_end_in(tmp_path: Path) -> None:
    tokens = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, -0.0, 0.0, 0.0]])
    tensors = {
        "tokens": tokens, "channels": torch.stack([tokens, -tokens], 2), "numbers": torch.tensor([0, 7, 0]),
        "mask": (tokens != 0).long(), "exact": tokens / 3,
    }  # fmt: skip
    PromptCache(tmp_path).add(Condition(("a", "b", "c"), tensors), torch.bfloat16)
    read = PromptCache(tmp_path).read(["a", "b", "c"])
    for row in range(3):
        for name, values in read.tensors.items():
            assert values.dtype == tensors[name].dtype and torch.equal(values[row], tensors[name][row])
            assert torch.equal(values[row].signbit(), tensors[name][row].signbit())
    rows = kept(tmp_path, ["a", "b", "c"])
    assert {name: [value[name].numel() for value in rows] for name in tensors} == {
        "tokens": [3, 1, 2], "channels": [8, 8, 8], "numbers": [1, 1, 1], "mask": [3, 1, 1], "exact": [3, 1, 2],
    }  # fmt: skip
    for row_kept in rows:  # thirds would be rounded
        assert row_kept["tokens"].dtype == torch.bfloat16 and row_kept["exact"].dtype == torch.float32


def test_a_prompt_that_was_cut_is_known_for_it(tmp_path: Path) -> None:
    """Whoever refuses long prompts is not given the beginning of one that another run had cut."""
    folder = write_twin("StableDiffusionPipeline", tmp_path / "short", max_tokens=8)
    long, cutting, refusing = "a very long prompt about a cat and a dog", encoder_of(folder), encoder_of(folder)
    cutting.long_prompts = "cut"
    cache = PromptCache(tmp_path / "cache")
    assert cache.encode(cutting, ["a cat", long, "a dog"]) == 3
    assert cache.encode(cutting, [long, "a dog"]) == cache.encode(refusing, ["a dog", "a cat"]) == 0
    read, direct = cache.read([long, "a dog"]), cutting.encode([long, "a dog"])
    assert torch.equal(read.tensors["encoder_hidden_states"], direct.tensors["encoder_hidden_states"])
    refusing.how_to_cut = "--set long_prompts=cut"
    with pytest.raises(RequestError, match=r"'a very long .*holds its beginning alone\. Shorten it, or .*prompts=cut"):
        PromptCache(tmp_path / "cache").encode(refusing, ["a cat", long])
    assert not refusing.loaded


def test_a_cache_is_enough_to_train_without_text_encoders(folder: Path, tmp_path: Path) -> None:
    cache, prompts = tmp_path / "cache", tmp_path / "prompts.txt"
    words = ["prompts", "encode", "--reference", str(folder), "--prompts", str(prompts), "--cache", str(cache)]
    assert main([*words, "--device", "cpu"]) == 0
    for encoder in ("text_encoder", "text_encoder_2"):
        for file in (folder / encoder).glob("*.safetensors"):
            file.unlink()
    config = TrainConfig(
        reference=str(folder), prompts=str(prompts), prompt_cache=cache, steps=1, batch_size=2, eval_count=2,
        reference_steps=1, guidance=2.0, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    assert train(config).summary["steps"] == 1
    with pytest.raises(RequestError, match=r"weights of 'text_encoder.*are missing"):
        train(config.model_copy(update={"prompt_cache": tmp_path / "empty", "out": tmp_path / "other"}))
    assert not list(tmp_path.glob("empty/**/*.sqlite"))


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    cache = PromptCache(tmp_path / "cache")
    cache.encode(encoder_of(folder), PROMPTS)
    cache.path.write_bytes(cache.path.read_bytes()[:50])
    with pytest.raises(RequestError, match=f"{NAME} is damaged"):
        PromptCache(tmp_path / "cache")


def test_a_long_prompt_is_refused_or_cut(tmp_path: Path) -> None:
    folder = write_twin("StableDiffusionPipeline", tmp_path / "short", max_tokens=8)
    encoder = encoder_of(folder)
    long = "a very long prompt about a cat and a dog and the sea"
    with pytest.raises(RequestError, match=r"has \d+ tokens, and the text encoder reads 8\. Shorten it\.$"):
        encoder.encode([long])  # by a command that cuts none
    encoder.how_to_cut = "--set long_prompts=cut"
    with pytest.raises(RequestError, match=r"has \d+ tokens, and the text encoder reads 8.*long_prompts=cut"):
        encoder.encode([long])
    encoder.long_prompts = "cut"
    assert encoder.encode([long]).tensors["encoder_hidden_states"].shape[1] == 8


def test_the_encoders_are_released(folder: Path) -> None:
    encoder = encoder_of(folder)
    encoder.encode(PROMPTS)
    assert encoder.loaded
    encoder.release()
    assert not encoder.loaded
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(RequestError, match=r"has no config\.json"):
        encoder.encode(PROMPTS)
