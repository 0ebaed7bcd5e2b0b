"""The contract of a family can be broken, line by line, and says where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from dipp_chroma.family import ChromaFamily
from dipp_flux.family import FluxFamily
from dipp_pixart.family import PixArtFamily
from dipp_toolkit.experiments import family_contract
from dipp_toolkit.experiments.family_contract import Kept, Twin, check_family, published_models, twin_of


@pytest.fixture(scope="module")
def pixart() -> Iterator[Twin]:
    with twin_of("PixArtAlphaPipeline") as twin:
        yield twin


@pytest.fixture(scope="module")
def flux() -> Iterator[Twin]:
    with twin_of("FluxPipeline") as twin:
        yield twin


def broken(rows: Iterator[Kept]) -> list[str]:
    return [row.line for row in rows if not row.kept]


def changed(method: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda self, *arguments: change(method(self, *arguments))


def test_a_mask_that_is_not_handed_on_is_found(pixart: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_read(condition: Any) -> Any:
        tensors = condition.tensors
        mask = tensors["encoder_attention_mask"]
        return replace(condition, tensors=tensors | {"encoder_attention_mask": mask.new_ones(mask.shape)})

    monkeypatch.setattr(PixArtFamily, "encode", changed(PixArtFamily.encode, all_read))
    assert "4 steps at guidance 1 are the stock pipeline's" in broken(family_contract.sampling(pixart))


def test_a_prompt_that_is_left_out_is_found(pixart: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    def same(condition: Any) -> Any:
        return replace(condition, tensors={name: tensor * 0 for name, tensor in condition.tensors.items()})

    monkeypatch.setattr(PixArtFamily, "encode", changed(PixArtFamily.encode, same))
    assert broken(family_contract.conditions(pixart)) == ["what the network predicts depends on the prompt"]


def test_a_wrong_sign_is_found(flux: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    own = flux.reference.denoiser

    def turned(*arguments: Any) -> Tensor:
        return -own.forward(*arguments)

    monkeypatch.setattr(flux.reference, "denoiser", replace(own, forward=turned))
    lines = broken(family_contract.sampling(flux))
    assert lines == ["4 steps at guidance 1 are the stock pipeline's", "4 steps at guidance 3 are the stock pipeline's"]


def test_a_family_that_does_not_say_that_its_networks_checkpointing_is_faulty_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with twin_of("ChromaPipeline") as chroma:
        monkeypatch.delattr(ChromaFamily, "faulty_checkpointing")
        first = next(family_contract.training(chroma))
    assert not first.kept and first.line == "blocks that are recomputed predict what others do"


def test_a_blank_of_another_shape_is_found(flux: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FluxFamily, "blank", changed(FluxFamily.blank, lambda condition: condition[[0, 0, 0]]))
    assert broken(family_contract.conditions(flux)) == ["a blank condition has the shapes of an encoded one"]


def test_a_size_that_nobody_stated_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    models = published_models("PixArtAlphaPipeline")
    assert {"pixart-alpha", "pixart-onestep"} <= {model.name for model in models}
    monkeypatch.setattr(family_contract, "published_models", lambda kind: [replace(models[0], parameters=0.7)])
    assert broken(family_contract.published("PixArtAlphaPipeline")) == [f"{models[0].name} has its authors' size"]


def test_what_a_line_raises_is_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(twin: Twin) -> Iterator[Kept]:
        raise ValueError("nothing to pad with")

    monkeypatch.setattr(family_contract, "LINES", {"conditions": raising})
    (row,) = check_family("FluxPipeline")
    assert not row.kept and "nothing to pad with" in row.found
