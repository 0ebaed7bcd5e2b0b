"""Launches are counted as a GPU would make them, without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.step_cost import run
from benchmarks.step_cost.calls import Calls, chunks
from benchmarks.step_cost.run import page, ratio


def test_kinds_of_calls() -> None:
    """Views and reservations start nothing; a multi-tensor call is one launch for few tensors."""
    with FakeTensorMode():
        layer, x = nn.Linear(4, 4), torch.ones(2, 3, 4)
        with Calls() as calls:
            output = layer(x.view(6, 4)).t().half()
            torch._foreach_mul_([torch.empty(3), torch.empty(3)], 2.0)
            assert float(output.sum()) == 1.0
    assert calls.kinds == {"products": 1, "copies": 1, "optimiser": 1, "others": 1, "reads": 1}
    assert calls.launches == 4


def test_launches_of_a_multi_tensor_call() -> None:
    small, large = torch.empty(8, device="meta"), torch.empty(65536 * 320 * 2 + 1, device="meta")
    assert chunks([[small] * 110]) == 1
    assert chunks([[small] * 111]) == 2
    assert chunks([[small] * 37] * 4) == 2
    assert chunks([[large]]) == 3
    assert chunks([[]]) == 0


def test_adapters_are_held_against_all_weights() -> None:
    results = {"sd15:full": {"launches": 100}, "sd15:lora": {"launches": 110}}
    assert ratio("sd15:lora", results) == "1.10"
    assert ratio("sd15:full", results) == ratio("sdxl:lora", results) == ""


def test_a_page_has_what_was_counted_and_no_more() -> None:
    half = {"assistant": {"eager": 10, "compiled": 10}, "generator": {"eager": 20, "compiled": 10}}
    eager = {"assistant": {"eager": 40, "compiled": 0}, "generator": {"eager": 60, "compiled": 0}}
    compiled = {"pixart-alpha:full": {"eager": eager, "compiled": half, "graphs": 4, "compiled_later": 0}}
    kinds = {"products": 1, "copies": 2, "optimiser": 3, "others": 1994}
    text = page(
        {
            "against": "8535fb5", "before": {"flux:lora": {"waits": 6}},
            "after": {"sd15:full": {"launches": 2000, "kinds": kinds, "waits": 2}}, "compiled": compiled,
        }
    )  # fmt: skip
    assert "| flux:lora |  |  |  |  |  |  |  |  | 6 |  |" in text
    assert "| sd15:full |  | 2,000 | 1 | 2 | 3 | 1,994 |  |  |  | 2 |" in text
    assert "| pixart-alpha:full | 100 | 50 | 20 | 0.50 | 4 | 0 |" in text
    assert "Compiled" not in page({"against": None, "before": {}, "after": {}, "compiled": {}})


def test_counts_are_added_to_those_that_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the other commit is not counted again, and cases that are not asked for stay."""
    kept = {"launches": 300, "kinds": {}}
    before = {"sd15:full": {"launches": 200}, "flux:lora": {"waits": 6}}
    known = {"against": "8535fb5", "before": before, "after": {"sd15:full": {"waits": 2}, "sd15:lora": kept}}
    (tmp_path / "results.json").write_text(json.dumps({**known, "compiled": {}}))
    counted: list[tuple[str, str, str]] = []

    def count(case: str, root: Path, what: str) -> dict[str, Any]:
        counted.append((case, root.name, what))
        return {what: 100, "kinds": dict.fromkeys(run.KINDS, 25)} if what == "launches" else {what: 8}

    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path / "today")
    monkeypatch.setattr(run, "checkout_of", lambda commit, folder: folder)
    monkeypatch.setattr(run, "in_process_of_its_own", count)
    words = ["--cases", "sd15:full,flux:lora", "--counts", "launches,waits,compiled", "--against", "8535fb5"]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    run.main()
    assert counted == [
        ("sd15:full", "today", "launches"),
        ("sd15:full", "before", "waits"),
        ("sd15:full", "today", "waits"),
        ("flux:lora", "before", "launches"),
        ("flux:lora", "today", "launches"),
        ("flux:lora", "today", "waits"),
    ]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["before"]["sd15:full"] == {"launches": 200, "waits": 8}
    assert results["after"]["sd15:lora"] == kept
    text = (tmp_path / "results.md").read_text()
    assert "| sd15:full | 200 | 100 | 25 | 25 | 25 | 25 |  |  | 8 | 8 |" in text
    assert "| sd15:lora |  | 300 |  |  |  |  |  | 3.00 |  |  |" in text
