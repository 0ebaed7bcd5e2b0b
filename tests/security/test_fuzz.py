"""Whatever people type, and whatever their files hold: a value or a sentence, and never another error.

The short run is the same every time. The whole one, `pytest -s -m exhaustive tests/security/test_fuzz.py
tests/security/test_fuzz_strangers.py`, tries more than ten thousand cases; its last test says how many of each.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from dipp_cli.actions.settings import given_settings
from dipp_cli.app import main
from dipp_toolkit.config import make_config
from dipp_toolkit.evaluation.image_files import read_image, read_prompts
from dipp_toolkit.evaluation.loading import load_metric
from dipp_toolkit.experiments.ablation.grid import grid, parse_vary, read_cells
from dipp_toolkit.experiments.bench.entries import parse_entries
from dipp_toolkit.models.loading import load_generator, load_reference
from dipp_toolkit.prompts.files import read_prompt_file
from dipp_toolkit.prompts.loading import load_prompts
from dipp_toolkit.report.rerun_command import again_from_flags
from dipp_toolkit.rewards.isolated.install import plan
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote.address import parse_addresses, read_token
from dipp_toolkit.rewards.remote.serve import public_names
from dipp_toolkit.training.run_state.run_folder import choose_folder
from dipp_toolkit.utils.assignments import parse_assignments, parse_floors, parse_options, parse_rewards, read_yaml
from dipp_toolkit.utils.setting_layers import merge
from dipp_toolkit.utils.yaml_loader import parse_yaml
from fuzzing import (
    FIELDS,
    JSON,
    LETTERS,
    NUMBERS,
    PLAIN,
    TEXTS,
    VALUES,
    alone,
    answered,
    damaged,
    fuzz,
    settings_of,
)


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with alone(tmp_path_factory.mktemp("fuzz")):
        yield


# Names.


@fuzz(150, 2000, name=TEXTS)
def test_names(name: str) -> None:
    for load in (load_generator, load_reference, load_reward, load_prompts, load_metric):
        if name.removeprefix("diffusers:").strip() not in (".", "hps", "emoji"):
            answered(lambda load=load: load(name))
    for call in (parse_addresses, parse_rewards, parse_floors, plan, lambda one: parse_entries(one, {})):
        answered(lambda call=call: call(name))
    answered(lambda: public_names([name, f"{name}x"]))
    answered(lambda: read_token(None, name))
    found = answered(lambda: choose_folder(make_config({"generator": name})))
    assert found is None or found.path.parent == Path("runs")


@fuzz(100, 1500, texts=st.lists(st.one_of(TEXTS, st.builds("{}={}".format, TEXTS, TEXTS)), max_size=4))
def test_assignments(texts: list[str]) -> None:
    found = answered(lambda: parse_assignments(texts))
    answered(lambda: parse_options(texts, ("reward", "metric", "generator")))
    answered(lambda: grid(parse_vary(texts)))
    answered(lambda: given_settings({"steps": 3, "seed": None}, texts))
    if found is not None:
        answered(lambda: make_config(found))
        answered(lambda: make_config(merge(found, {"reward_options": {"a": {"b": 1}}})))
        answered(lambda: make_config(merge({"reward_options": {"a": {"b": 1}}, "term_options": 3}, found)))


# Settings.


WORDS = (
    "generator",
    "reference",
    "prompts",
    "judge",
    "term",
    "weighting",
    "lora_targets",
    "decoder",
    "out",
    "prompt_cache",
)
WEIGHTS = st.dictionaries(TEXTS, st.floats(-1e9, 1e9), max_size=3)
CHOICES = st.dictionaries(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=3), max_size=2)
LIKELY = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(WORDS, TEXTS)
    | {"rewards": WEIGHTS, "floors": WEIGHTS, "reward_options": CHOICES, "term_options": CHOICES}
    | {
        "steps": st.integers(1, 9),
        "guidance": st.floats(0, 9),
        "time_range": st.just([0, 0.5]),
        "stop_on": st.just("all"),
    }
    | {"monitor_rewards": st.lists(TEXTS, max_size=2), "ema": st.floats(0, 0.9), "resume": st.booleans()},
)


@fuzz(
    250,
    2500,
    values=st.one_of(
        LIKELY,
        st.builds(
            lambda name, value: {name: value}, st.sampled_from(FIELDS), st.one_of(NUMBERS, NUMBERS, PLAIN, VALUES)
        ),
        settings_of(st.sampled_from(FIELDS)),
        settings_of(TEXTS),
        st.dictionaries(TEXTS, VALUES),
    ),
)
def test_settings(values: dict[Any, Any]) -> None:
    config = answered(lambda: make_config(values))
    if config is None:
        return
    # What a run writes into its folder is what it reads when it goes on.
    assert repr(make_config(parse_yaml(config.to_yaml()))) == repr(config)
    answered(lambda: config.terms)
    answered(lambda: choose_folder(config))
    answered(lambda: again_from_flags(config))


YAML_PIECES = (
    "a: ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", ": ", "? ", "&a ", "*a", "!!", "!!int ", "!!bool ",
    "!!float ", "!!binary ", "!!timestamp ", "!!python/name:os.system ", "!!map ", "!!seq ",
    "!<tag:yaml.org,2002:int> ", "<<: ", "|\n", ">\n", "'", '"', "#", "%YAML 1.1\n---\n", "---\n", "...", "~",
    "null", "yes", ".nan", "-.inf", "0x1", "1:30", "2001-99-99", "\t", "\0", "\ufeff", "steps: ", "rewards: ",
    "reward_options: ", "guidance: ", "seed: ", "9" * 5000,
)  # fmt: skip
YAML = st.one_of(
    st.lists(st.one_of(st.sampled_from(YAML_PIECES), st.text(LETTERS, max_size=3)), max_size=14)
    .map("".join)
    .map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=60),
    damaged(
        b"steps: 3\nrewards: {hps: 1.0, clip: 2}\ntime_range: [0.1, 0.9]\nreward_options:\n  hps: {version: v2.1}\n"
    ),
    damaged(b"- {guidance: 3, seed: 0}\n- {guidance: 4.5, rewards: 'hps=2,clip'}\n"),
)


@fuzz(150, 1500, data=YAML)
def test_yaml(data: bytes) -> None:
    path = Path("settings.yaml")
    path.write_bytes(data)
    found = answered(lambda: read_yaml(path))
    if found is not None:
        answered(lambda: make_config(found))
    answered(lambda: read_cells(path))
    answered(lambda: parse_assignments([f"steps={data.decode('utf-8', 'surrogateescape')}"]))


# Files of prompts and pictures.

TABLE = "prompt\tcategory\na red cat\tanimals\n\"a 'dog'\tx\n"
LISTS: tuple[Any, ...] = (
    ["a cat"], [{"prompt": "a cat", "id": 3, "category": "x"}], {"x": [{"caption": "a"}]},
    {"annotations": [{"image_id": 1, "id": 2, "caption": "a b"}]}, {"images": ["a.png"], "prompts": ["a"]},
)  # fmt: skip
GOOD = (
    TABLE,
    TABLE.replace("\t", ","),
    *(json.dumps(item) for item in LISTS),
    '{"prompt": "a"}\n"b"\n',
    "a cat\n# no\n\nb\n",
)
ENDINGS = (".txt", ".tsv", ".csv", ".json", ".jsonl", ".parquet", "", ".TXT", ".png")


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": ["a cat", "a dog"], "id": [1, 2]}), buffer)
    return buffer.getvalue()


def picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


DATA = st.one_of(
    st.binary(max_size=80),
    st.text(LETTERS, max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.one_of(*(damaged(item.encode()) for item in GOOD)),
    st.one_of(*(damaged(item.encode()) for item in GOOD)),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(JSON, max_size=4).map(lambda values: "\n".join(map(json.dumps, values)).encode()),
    damaged(parquet()),
    damaged(picture()),
)


@fuzz(200, 1500, data=DATA, ending=st.sampled_from(ENDINGS))
def test_prompt_files(data: bytes, ending: str) -> None:
    path = Path(f"file{ending}")
    path.write_bytes(data)
    found = answered(lambda: read_prompt_file(path))
    if found is not None:
        assert all(isinstance(prompt.text, str) and prompt.text.strip() for prompt in found.prompts)
    for query in ("", "?count=1", "?category=x", "?category=animals&count=1&seed=2"):
        answered(lambda query=query: [prompt.text for prompt in load_prompts(f"./{path}{query}").prompts])
    answered(lambda: read_prompts(str(path)))
    answered(lambda: read_image(path))
    path.unlink()


# Command lines.

NOWHERE = "./nowhere"
COMMANDS = (
    ["train", "--generator", NOWHERE, "--reference", NOWHERE, "--prompts", NOWHERE],
    ["distill", "--reference", NOWHERE, "--prompts", f"{NOWHERE}.txt"],
    ["generate", "--prompts", f"{NOWHERE}.txt"],
    ["score", f"{NOWHERE}.png"],
    ["bench", "--generators", NOWHERE, "--prompts", NOWHERE, "--rewards", "nobody"],
    ["ablate", "--reference", NOWHERE, "--prompts", NOWHERE, "--out", "ablation"],
    ["leaderboard", f"{NOWHERE}.jsonl"],
    ["leaderboard", "check", f"{NOWHERE}.jsonl"],
    ["plan", "--generator", "nobody"],
    ["reward", "check", "nobody"],
    ["reward", "serve", "nobody", "--port", "0"],
    ["reward", "install", "nobody"],
    ["prompts", "encode", "--reference", NOWHERE, "--prompts", NOWHERE],
    ["verify", "--term", "nobody"],
    ["plugins"],
    ["plugins", "show", "nobody"],
    ["plugins", "check", "nobody"],
    ["plugins", "new", "nothing", "nobody"],
    [],
)
OPTIONS = (
    "--set", "--steps", "--seed", "--out", "--config", "--resume", "--reward", "--rewards", "--judge", "--floor",
    "--balance", "--device", "--json", "--quiet", "--vary", "--cells", "--count", "--prompt", "--host",
    "--token-file", "--timeout", "--memory", "--max-images", "--best", "--subject-to", "--metrics", "--images",
    "--category", "--sort", "--markdown", "--track", "--precision", "--batch-size", "--guidance", "--mode",
    "--help", "--", "-x", "--nothing",
)  # fmt: skip
MORE = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(OPTIONS),
            st.one_of(TEXTS, st.integers(-9, 9).map(str), st.builds("{}={}".format, st.sampled_from(FIELDS), TEXTS)),
        ),
        st.tuples(TEXTS),
    ),
    max_size=3,
).map(lambda found: [word for words in found for word in words])


@fuzz(60, 900, command=st.sampled_from(COMMANDS), more=MORE)
def test_command_lines(command: list[str], more: list[str]) -> None:
    more = [word for word in more if word != "--debug"]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main([*command, *more])
    said = error.getvalue()
    assert code in (0, 1, 2), code
    assert "Traceback" not in said and "Run again with --debug" not in said, said
    if code:
        assert said.splitlines()[-1].startswith("Error: ") or command[:2] == ["leaderboard", "check"], said
    for path in (Path("runs"), Path("run")):
        shutil.rmtree(path, ignore_errors=True)
