"""The numbers in the README are the benchmark's own, not typed in."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_quality_table_is_what_the_benchmark_wrote() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- emoji-quality -->\n")[1].split("<!-- /emoji-quality -->")[0].strip()
    wrote = (ROOT / "benchmarks/emoji_quality/results.md").read_text(encoding="utf-8")
    assert block.count("\n| ") >= 6
    assert wrote.startswith(block)
