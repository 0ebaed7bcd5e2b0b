"""What all tests share: shapes are checked, nothing is random, nothing reaches for the network."""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Expected numbers are a CPU's, and many tests take the device that there is: CUDA_VISIBLE_DEVICES=0 runs them on a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests that run beside each other take a thread each, whatever the process above them has.
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # of `nohup make test`; a run leaves what is ignored ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

CACHE = tempfile.TemporaryDirectory(prefix="dipp-test-cache-", ignore_cleanup_errors=True)  # gone with the process
os.environ["DIPP_CACHE"] = CACHE.name
os.environ["HF_DATASETS_CACHE"] = f"{CACHE.name}/datasets"

import jaxtyping

import typechecker

# From here on every annotated function of these modules checks the types and shapes it is given and returns. A plugin's
# own __init__ only registers, and names roles in annotations without importing them, so it is left out.
PLUGINS = Path(__file__).parent.parent / "plugins"
PLUGIN_MODULES = [f"{path.parent.name}.{path.stem}" for path in PLUGINS.glob("*/[!_]*.py")]
jaxtyping.jaxtyped = typechecker.checked
jaxtyping.install_import_hook(["dipp_toolkit", *PLUGIN_MODULES], "typechecker.check")

import pytest
import torch

from dipp_toolkit.registry import Registry
from tiny import LATENT_SHAPE, PROMPTS

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def registry() -> Registry:
    """An empty registry that knows the hooks and no plugin."""
    return Registry()


@pytest.fixture
def noise() -> torch.Tensor:
    """Pure noise for each of the tiny pipelines' prompts."""
    return torch.randn(len(PROMPTS), *LATENT_SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a function marked `first_case`, whose cases take seconds each, all but the first are exhaustive."""
    seen = set()
    for item in items:
        if item.get_closest_marker("first_case") and not item.get_closest_marker("exhaustive"):
            function = (item.path, getattr(item, "originalname", item.name))
            if function in seen:
                item.add_marker(pytest.mark.exhaustive)
            seen.add(function)


def pytest_collection_finish() -> None:
    """Leave the modules that have been imported out of every later collection of garbage.

    Checked modules are half a million objects that are never garbage. Going through them was a quarter of the tests'
    time: a training collects garbage once its prompts are encoded, and Python does of its own accord.
    """
    _leave_out_what_lives()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The same for what a file's tests imported."""
    yield
    if nextitem is None or nextitem.path != item.path:
        _leave_out_what_lives()


def _leave_out_what_lives() -> None:
    gc.collect()
    gc.freeze()
