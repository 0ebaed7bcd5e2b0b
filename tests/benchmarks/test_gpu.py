"""The benchmark for a GPU goes through all of its steps on a CPU, with tiny networks, and says when there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.full_size_step import case as full_size
from benchmarks.full_size_step.case import Case
from benchmarks.full_size_step.watch import REWARDING
from benchmarks.gpu import cases, run
from benchmarks.gpu.cases import FLUX, Variant, bisection, variants
from benchmarks.gpu.page import page, read_rows, with_row


def test_says_in_a_sentence_that_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main([]) == 2
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_one_variant_is_measured_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "variants", lambda: [Variant("pixart-alpha:lora:2", "eager", cases.WAYS["eager"])])
    target = tmp_path / "dry.json"
    assert run.main(["--dry", "--steps", "1", "--minutes", "3", "--results", str(target)]) == 0
    (row,) = json.loads(target.read_text())
    assert "failed" not in row
    assert (row["case"], row["how"], row["batch"], row["without_waits"]) == ("pixart-alpha:lora:2", "eager", 2, True)
    assert row["seconds"] > 0
    assert "| pixart-alpha:lora:2 | eager |" in target.with_suffix(".md").read_text()


def test_rows_are_written_one_by_one_and_a_failing_flux_is_bisected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(variant: Variant, steps: int, limit: float, work: Path, dry: bool) -> dict[str, Any]:
        assert 0 < limit <= variant.limit
        kept.append(len(read_rows(target)))
        failed = {"failed": "CUDA error: an illegal memory access was encountered"}
        row = {"seconds": 0.5, "images_per_second": 8.0, "peak_memory": 2**30}
        return {
            "name": variant.name,
            "case": variant.case,
            "how": variant.how,
            **(failed if variant.case == FLUX else row),
        }

    kept: list[int] = []
    target = tmp_path / "rows.json"
    monkeypatch.setattr(run, "measured", measured)
    monkeypatch.setattr(run, "variants", lambda: [Variant("pixart-alpha:full:4"), Variant(FLUX)])
    assert run.main(["--dry", "--minutes", "9", "--results", str(target)]) == 0
    assert kept == list(range(2 + len(bisection())))
    text = target.with_suffix(".md").read_text()
    assert "| pixart-alpha:full:4 | eager | 0.5 | 0.751 | 1.50 |" in text
    failing = [variant for variant in (Variant(FLUX), *bisection()) if variant.case == FLUX]
    assert text.count("illegal memory access") == len(failing)


def test_no_variant_begins_when_the_minutes_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measured", lambda *_: pytest.fail("it began"))
    assert run.main(["--dry", "--minutes", "0.1", "--results", str(tmp_path / "rows.json")]) == 0


def test_what_is_asked_for_comes_first_and_each_variant_has_a_name_of_its_own() -> None:
    names = [variant.name for variant in (*variants(), *bisection())]
    assert len(names) == len(set(names))
    assert names[:2] == ["pixart-alpha:full:4, eager", "pixart-alpha:full:4, eager, not deterministic"]
    asked = {"pixart-alpha:full:4", "pixart-alpha:full:16", "pixart-alpha:lora:4", "sd15:lora:4", "sdxl:lora:2", FLUX}
    assert {variant.case for variant in variants()} == asked


def test_a_row_takes_the_place_of_an_earlier_one() -> None:
    rows = [
        {"name": "a", "case": "x", "how": "eager", "failed": "no|memory"},
        {"name": "b", "case": "x", "how": "eager"},
    ]
    rows = with_row(rows, {"name": "b", "case": "x", "how": "eager", "failed": "late"})
    assert [row.get("failed") for row in rows] == ["no|memory", "late"]
    assert "no/memory" in page(rows)


def test_a_full_size_step_is_cut_as_the_plan_cuts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.parse("pixart-alpha:lora:2")
    monkeypatch.setattr(full_size, "loop_of", lambda case, device, work: run.tiny_loop(case, work))
    result = full_size.measure(case, torch.device("cpu"), 1, tmp_path)
    pieces = {"assistant update", "generator", "divergence", REWARDING, "optimisers and average", "rest"}
    assert set(result["parts"]) == pieces
    assert sum(part["seconds"] for part in result["parts"].values()) == pytest.approx(sum(result["seconds"]), rel=0.05)
    assert result["parts"]["generator"]["tflop"] > 0
    assert result["peak_gib"] > 0
