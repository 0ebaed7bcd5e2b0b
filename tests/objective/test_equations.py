"""The parts of the paper's objective name one another in their docstrings, and every module that these name exists."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import dipp_toolkit

ROOT = Path(dipp_toolkit.__file__).parent
NAME = re.compile(r"`(dipp_toolkit(?:\.\w+)+)`")
FILES = sorted(
    path for room in ("objective", "diffusion", "monitoring", "report") for path in (ROOT / room).rglob("*.py")
)
FORMULA, WEIGHT, GUIDANCE = (
    "dipp_toolkit.objective.terms.integral_kl",
    "dipp_toolkit.diffusion.times",
    "dipp_toolkit.objective.terms.divergence.guided_x0",
)


def names_in(path: Path) -> set[str]:
    return set(NAME.findall(path.read_text(encoding="utf-8")))


def resolves(name: str) -> bool:
    module, attributes = name, []
    while module:
        try:
            found = import_module(module)
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
            continue
        for attribute in attributes:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize(
    ("file", "others"),
    [
        ("objective/terms/integral_kl.py", {WEIGHT, GUIDANCE}),
        ("objective/terms/divergence.py", {FORMULA, WEIGHT}),
        ("diffusion/times.py", {FORMULA, GUIDANCE}),
        ("diffusion/denoiser.py", {FORMULA, GUIDANCE}),
        ("objective/terms/reward.py", {FORMULA}),
    ],
)
def test_formula_weight_and_guidance_name_one_another(file: str, others: set[str]) -> None:
    assert others <= names_in(ROOT / file)


def test_equation_3_1_is_found_from_every_part_of_it() -> None:
    for file in (
        "objective/terms/integral_kl.py",
        "diffusion/times.py",
        "diffusion/denoiser.py",
        "objective/terms/reward.py",
    ):
        docstrings = [
            ast.get_docstring(node) or ""
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        assert any("eq. 3.1" in docstring for docstring in docstrings), file


def test_what_docstrings_name_exists() -> None:
    names = set().union(*map(names_in, FILES))
    assert len(names) > 8
    assert not sorted(name for name in names if not resolves(name))
