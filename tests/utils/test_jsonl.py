"""JSON lines end at line feeds alone: what else ends lines in Python may stand in a string."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipp_toolkit.evaluation.image_files import read_prompts
from dipp_toolkit.experiments.bench.rows import read_rows, write_rows
from dipp_toolkit.report.run_files import read_metrics
from dipp_toolkit.training.guard import FileOfSkips, skip_warning
from dipp_toolkit.utils.jsonl import MetricsFile, numbered_lines, read_lines, read_step_rows, whole_rows
from fake_rows import fake_row

ODD = "first\u2028second\u2029third\u0085fourth\x0bfifth\x0csixth\x1cseventh"


@given(
    texts=st.lists(st.text(st.sampled_from(ODD + 'ab"\\\r\n'), max_size=20), max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_text_comes_back(texts: list[str], end: str) -> None:
    written = "".join(json.dumps({"text": text}, ensure_ascii=False) + end for text in texts)
    assert [json.loads(line)["text"] for _, line in numbered_lines(written)] == texts


def test_numbers_count_blank_lines_and_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}')
    assert read_lines(path) == [(1, '{"a": 1}'), (4, '{"a": 2}')]
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("cut", ['{"step": 3, "te', '{"step": 3}[', "[3]", "[" * 100_000])
def test_rows_end_before_a_line_that_a_kill_cut_off(tmp_path: Path, cut: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + cut, encoding="utf-8")
    assert [row["step"] for row in whole_rows(path)] == [1, 2]


def test_a_runs_own_files(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step, "text": ODD, "loss": 1.0}, ensure_ascii=False) + "\n" for step in (1, 2, 3)),
        encoding="utf-8",
    )
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert [row["text"] for row in read_step_rows(path)] == [ODD] * 3
    MetricsFile(path, 2).close()
    assert [row["text"] for row in whole_rows(path)] == [ODD] * 2


def test_rows_of_steps_end_before_a_step_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n{"step": "2"}\n{"step": 3}\n', encoding="utf-8")
    assert read_step_rows(path) == [{"step": 1}]


def test_reasons_of_skipped_steps(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text(json.dumps({"step": 4, "reasons": [ODD]}, ensure_ascii=False) + "\n", encoding="utf-8")
    FileOfSkips(path, 9).close()
    assert ODD in skip_warning(path)[0]


@pytest.mark.parametrize("row", [{}, {"step": 4}, {"step": 4, "reasons": 7}])
def test_skipped_steps_without_reasons(tmp_path: Path, row: dict[str, object]) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    said = skip_warning(path)
    assert said == [] or "step 4: not recorded." in said[0]


def test_rows_of_a_leaderboard(tmp_path: Path) -> None:
    row = fake_row("a", 0.0)
    row = row.model_copy(update={"notes": (ODD,)})
    write_rows(tmp_path / "r.jsonl", [row, row])
    assert [item.notes for item in read_rows(tmp_path / "r.jsonl")] == [(ODD,)] * 2


def test_prompts_of_images(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"file_name": "1.png", "text": ODD}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [(prompt.file, prompt.text) for prompt in read_prompts(str(path))] == [("1.png", ODD)]
