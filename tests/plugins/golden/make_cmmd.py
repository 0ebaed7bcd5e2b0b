"""Makes `cmmd.json` with the reference's own distance; run by an interpreter that has jax:

    python tests/plugins/golden/make_cmmd.py FOLDER/cmmd/distance.py

The file is `cmmd/distance.py` of github.com/google-research/google-research, imported from where it lies. Features
are made by a formula, so that the tests have the same ones; jax computes in 64 bits, as 32 leave three digits of a
difference of kernels that are all near 1.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CASES = ({"x": 40, "y": 60, "dimensions": 16, "shift": 0.3, "unit": True},
         {"x": 33, "y": 20, "dimensions": 768, "shift": 0.05, "unit": True},
         {"x": 50, "y": 50, "dimensions": 24, "shift": 2.0, "unit": False})  # fmt: skip


def formula_features(rows: int, dimensions: int, salt: int, shift: float, unit: bool) -> np.ndarray:
    """Rows that look random, by whole numbers alone, `(rows, dimensions)`, float64; of length 1 where `unit`."""
    mixed = (np.arange(rows * dimensions, dtype=np.int64) * 374761393 + (salt + 1) * 668265263) % 2**31
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) % 2**31
    found = ((mixed ^ (mixed >> 16)) % 2**31) / 2**30 - 1 + shift
    found = found.reshape(rows, dimensions)
    return found / np.linalg.norm(found, axis=1, keepdims=True) if unit else 4 * found


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    spec = importlib.util.spec_from_file_location("cmmd_distance", sys.argv[1])
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    made = []
    for case in CASES:
        x = formula_features(case["x"], case["dimensions"], 0, 0.0, case["unit"])
        y = formula_features(case["y"], case["dimensions"], 1, case["shift"], case["unit"])
        made.append({**case, "cmmd": float(reference.mmd(x, y))})
    (HERE / "cmmd.json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made))


if __name__ == "__main__":
    main()
