"""The toolkit's own plugin, `core`: its terms and its recipes, registered like any other plugin's.

A file of this folder that defines `build` is a term.

Its name is the file's, its summary the first line of the file's docstring. Files are read, not imported: registering
never imports torch.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ...hooks import Register, hookimpl
from ...planning.recipes.plugin import dipp_register_recipes

__all__ = ["dipp_register_recipes", "dipp_register_terms"]


@hookimpl
def dipp_register_terms(register: Register) -> None:
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(statement, ast.FunctionDef) and statement.name == "build" for statement in tree.body):
            summary = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
            register(path.stem, f"{__package__}.{path.stem}:build", summary=summary)
