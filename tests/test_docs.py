"""The documentation says what is true: its examples work, its links lead somewhere, its settings are the code's."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

from dipp_toolkit.assistant import LearnedAssistant
from dipp_toolkit.config import TrainConfig, make_config
from dipp_toolkit.hooks import hookimpl
from dipp_toolkit.loading import load_reference, load_reward
from dipp_toolkit.registry import Registry
from dipp_toolkit.run_folder import MAY_CHANGE
from dipp_toolkit.setting_texts import parse_assignments
from dipp_toolkit.terms.base import Sample, TermContext
from dipp_toolkit.terms.catalog import build_term
from tiny import LATENT_SHAPE, PROMPTS, tiny_pipeline

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def example(page: str, name: str) -> str:
    """The Python example of a page that begins with the comment `# name`."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(f"# {name}\n")]
    return found


@pytest.fixture
def write(tmp_path: Path):
    def write_example(name: str) -> Path:
        path = tmp_path / name
        path.write_text(example("writing-a-plugin.md", name), encoding="utf-8")
        return path

    return write_example


def test_the_settings_page_is_current() -> None:
    render = runpy.run_path(str(DOCS / "build_settings.py"))["render"]
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == render(), "run: python docs/build_settings.py"
    assert all(f"| `{name}` |" in render() for name in TrainConfig.model_fields)
    rows = {line.split("`")[1]: line for line in render().splitlines() if line.startswith("| `")}
    assert {name for name, row in rows.items() if "| may change |" in row} == MAY_CHANGE


def test_the_measured_tables_are_what_the_benchmarks_wrote() -> None:
    build = runpy.run_path(str(DOCS / "build_tables.py"))
    for page in build["PAGES"]:
        assert build["render"](page) == (DOCS / page).read_text(encoding="utf-8"), "run: python docs/build_tables.py"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []


def test_the_reward_of_ten_lines(write) -> None:
    assert len(example("writing-a-plugin.md", "blue.py").splitlines()) <= 10
    reward = load_reward(f"{write('blue.py')}:blueness")
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    scores = reward(images, ["a", "b"])
    assert scores.shape == (2,)
    assert torch.autograd.grad(scores.sum(), images)[0].abs().sum() > 0


def test_the_reward_with_options(write) -> None:
    options = parse_assignments(["reward../channel.py:Channel.strength=2"])["reward_options"]["./channel.py:Channel"]
    reward = load_reward(f"{write('channel.py')}:Channel", **options)
    torch.testing.assert_close(reward(torch.ones(1, 3, 2, 2), [""]), torch.tensor([2.0]))


def test_the_plugin_registers(write, registry: Registry) -> None:
    namespace = runpy.run_path(str(write("__init__.py")))
    assert namespace["hookimpl"] is hookimpl
    module = type("plugin", (), {"dipp_register_rewards": staticmethod(namespace["dipp_register_rewards"])})
    registry.add_plugin("warmth", lambda: module)
    assert registry.broken == []
    assert registry.find("reward", "warmth").factory == "dipp_warmth.reward:Warmth"


def test_the_term(write, tmp_path: Path) -> None:
    reference = load_reference(str(tiny_pipeline(tmp_path / "pipeline")))
    copied = reference.denoiser.trainable_copy()
    assistant = LearnedAssistant(copied, torch.optim.Adam(copied.network.parameters()))
    context = TermContext(reference, assistant, make_config({"guidance": 2.0}))
    term = build_term(f"{write('sds.py')}:ScoreDistillation", context)
    noise = torch.randn(len(PROMPTS), *LATENT_SHAPE)
    sample = Sample(noise, reference.encode(PROMPTS), noise, torch.Generator().manual_seed(0))
    result = term(sample)
    assert result.grad.shape == noise.shape
    torch.testing.assert_close(result.value, result.grad.square().flatten(1).mean(1) / 2)
