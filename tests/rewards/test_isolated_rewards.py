"""Rewards in an environment of their own: equal to the same reward here, and a sentence for every way they can fail."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dipp_toolkit.diffusion.condition import Condition
from dipp_toolkit.errors import BadNumbers, DippError, RequestError, RunError
from dipp_toolkit.objective.base import Sample
from dipp_toolkit.objective.terms.reward import RewardTerm
from dipp_toolkit.rewards.code_digests import identity_of
from dipp_toolkit.rewards.isolated import environments
from dipp_toolkit.rewards.isolated.scorer import IsolatedScorer
from dipp_toolkit.rewards.isolated.shared_room import SharedRoom
from dipp_toolkit.rewards.isolated.worker import Worker
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote import wire
from dipp_toolkit.rewards.remote.proxy import ProxyReward, check_numbers
from dipp_toolkit.utils.assignments import is_isolated_name

FILE = Path(__file__).parents[1] / "helpers" / "isolated_rewards.py"
PROMPTS = ["a cat", "a small red cat"]
IMAGES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", autouse=True)
def environment() -> Path:
    """A whole environment `mine`: our Python, nothing of its own, everything shared."""
    folder = environments.default_folder() / "mine"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (folder / environments.MARKER).write_text(json.dumps({"python": environments.PYTHON, "requirements": []}))
    private = environments.packages_of(folder) / "private_to_mine.py"
    private.write_text(
        "class Constant:\n"
        "    differentiable = False\n"
        "    def __call__(self, images, prompts):\n"
        "        import numpy\n"
        "        return [float(__file__.startswith(__import__('sys').prefix))] * len(images)\n"
    )
    return folder


@pytest.fixture(scope="module")
def moody(environment: Path) -> Iterator[ProxyReward]:
    """A worker that lives through tests which do not end it."""
    reward = load_reward(f"{FILE}:Moody@mine", factor=2.0)
    assert isinstance(reward, ProxyReward)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagereward@isolated", True),
        ("./mine.py:blue@mine", True),
        ("package.module:name@image-reward", True),
        ("./mine.py:blue", False),
        ("/home/me@work/mine.py:blue", False),
        ("@mine", False),
        ("hps@", False),
        ("http://me@127.0.0.1:8700/hps", False),
        ("http://127.0.0.1:8700/hps@mine", False),
    ],
)
def test_which_names_mean_an_environment(name: str, expected: bool) -> None:
    assert is_isolated_name(name) is expected


def test_scores_and_gradients_are_those_of_the_same_reward_here(moody: ProxyReward) -> None:
    here = load_reward(f"{FILE}:Moody", factor=2.0)
    weights = torch.tensor([1.0, -3.0])
    results = []
    for reward in (moody, here):
        images = IMAGES.clone().requires_grad_(True)
        scores = reward(images, PROMPTS)
        results.append((scores.detach(), torch.autograd.grad((scores * weights).sum(), images)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-9)
    cosine = torch.nn.functional.cosine_similarity(results[0][1].flatten(), results[1][1].flatten(), dim=0)
    assert cosine > 0.999999
    assert moody.differentiable is True
    assert torch.equal(moody(IMAGES, PROMPTS), results[0][0])


def test_shared_memory_and_the_socket_carry_the_same_bits(moody: ProxyReward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a later batch is larger or smaller than the memory."""
    random = torch.Generator().manual_seed(3)
    batches = [torch.rand(2, 3, side, side, generator=random) for side in (4, 9, 6)]

    def answers() -> list[torch.Tensor]:
        leaves = [images.clone().requires_grad_(True) for images in batches]
        scores = [moody(leaf, PROMPTS) for leaf in leaves]
        return [
            *scores,
            *(torch.autograd.grad(value.sum(), leaf)[0] for value, leaf in zip(scores, leaves, strict=True)),
        ]

    shared = answers()
    monkeypatch.setattr(SharedRoom, "reserve", lambda self, shape: False)
    assert all(torch.equal(a, b) for a, b in zip(shared, answers(), strict=True))


def test_shared_memory_is_gone_with_its_descriptors() -> None:
    room = SharedRoom.made()
    if room is None:
        pytest.skip("the system has no files without a name")
    assert room.reserve((2, 3, 4, 4)) and not room.reserve((0, 3, 4, 4))
    room.view((2, 3, 4, 4), 1).fill_(2.0)
    other = SharedRoom(os.dup(room.descriptor))
    assert other.view((2, 3, 4, 4), 1).eq(2).all() and other.view((2, 3, 4, 4), 0).eq(0).all()
    with pytest.raises(ValueError, match="768 bytes are shared, too few"):
        other.view((4, 3, 4, 4), 0)
    with pytest.raises(PermissionError):
        os.ftruncate(other.descriptor, 0)
    number = room.descriptor
    room.close()
    room.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    other.close()


@pytest.mark.parametrize("shape", [[2, 3, 4, 4], [2, -3, 4, 4], "all", [2, 3, 2**40, 2**20]])
def test_a_worker_answers_a_wrong_share_with_a_sentence(shape: object) -> None:
    for room in (None, SharedRoom.made()):
        worker = Worker(room)
        worker.reward = load_reward("sharpness")
        content = {"kind": "score", "protocol": wire.VERSION, "prompts": ["a", "b"], "gradients": True, "shared": shape}
        sentence = wire.error_of(wire.decode(worker.answer(wire.encode(content))))
        assert sentence is not None and "shared" in sentence


def test_a_worker_says_what_its_reward_is(moody: ProxyReward) -> None:
    assert moody.identity() == moody.identity() == identity_of(load_reward(f"{FILE}:Moody", factor=2.0))
    assert moody.identity() != identity_of(load_reward(f"{FILE}:Moody", factor=3.0))


def test_prints_do_not_come_between_messages(moody: ProxyReward) -> None:
    prompts = ["print", "x"]
    assert torch.equal(moody(IMAGES, prompts), load_reward(f"{FILE}:Moody", factor=2.0)(IMAGES, prompts))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (
            "raise",
            r"reward '.*Moody@mine' in its environment: .*failed with ValueError: a bad prompt \(.*line 66: .*\)\.$",
        ),
        ("column", r"tensor of shape \(2, 1\); expected one score"),
        ("detached", "returned no gradient; expected one"),
    ],
)
def test_a_reward_that_fails_gets_a_sentence_and_lives_on(moody: ProxyReward, prompt: str, sentence: str) -> None:
    process = moody.scorer._worker.process  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=sentence) as caught:
        moody(IMAGES.clone().requires_grad_(True), [prompt, ""])
    assert "\n" not in str(caught.value)
    moody(IMAGES, PROMPTS)
    assert moody.scorer._worker.process is process  # type: ignore[attr-defined]


def test_numbers_that_are_not_finite_come_back_as_they_are_here(moody: ProxyReward) -> None:
    for reward in (moody, load_reward(f"{FILE}:Moody")):
        images = IMAGES.clone().requires_grad_(True)
        scores = reward(images, ["nan", ""])
        assert scores.isnan().all()
        assert torch.autograd.grad(scores.sum(), images)[0].isnan().all()
        term = RewardTerm("moody", reward, lambda latents: latents)
        sample = Sample(IMAGES, Condition(("nan", ""), {}), IMAGES, torch.Generator())
        assert "returned a score that is not finite for 2 of 2 images" in term.explain(sample, term(sample))
        with pytest.raises(BadNumbers, match="score that is not finite for 2 of 2 images"):
            term.score(IMAGES, ["nan", ""])


def test_a_device_that_does_not_exist_is_a_sentence(moody: ProxyReward) -> None:
    with pytest.raises(RequestError, match="in its environment"):
        moody.to("cuda:99")
    moody.to("cpu")
    moody(IMAGES, PROMPTS)


def test_a_hanging_worker_is_ended_and_the_next_call_starts_another(moody: ProxyReward) -> None:
    moody.scorer.timeout, usual = 0.3, moody.scorer.timeout  # type: ignore[attr-defined]
    process = moody.scorer._worker.process  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=r"did not answer within 0\.3 s, .*--set reward\..*Moody@mine\.timeout=SECONDS"):
        moody(IMAGES, ["hang", ""])
    assert process.poll() is not None
    moody.scorer.timeout = usual  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moody(IMAGES, PROMPTS)


def test_a_worker_that_dies_is_started_again_once(tmp_path: Path) -> None:
    reward = load_reward(f"{FILE}:Moody@mine", file=str(tmp_path / "died"))
    prompts = ["die-once", "x"]
    with pytest.warns(RuntimeWarning, match="died and is started again: it was ended by signal 9, Killed"):
        scores = reward(IMAGES, prompts)
    assert torch.equal(scores, load_reward(f"{FILE}:Moody")(IMAGES, [*prompts]))
    with pytest.raises(RunError, match=r"died again: it ended with exit code 3; its last words: .*out of luck \| for"):
        reward(IMAGES, ["die", ""])


def test_our_death_is_the_workers_too(tmp_path: Path) -> None:
    source = f"""
import os, signal, threading, time, torch
from pathlib import Path
from dipp_toolkit.rewards.loading import load_reward
reward = load_reward({f"{FILE}:Moody@mine"!r}, file={str(tmp_path / "pid")!r})
threading.Thread(target=reward, args=(torch.zeros(1, 3, 2, 2), ["hang"]), daemon=True).start()
while not (Path({str(tmp_path)!r}) / "pid").exists():
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False, timeout=300).returncode == -9
    for pid in map(int, (tmp_path / "pid").read_text().split()):
        _wait_until_ended(pid)


def _wait_until_ended(pid: int) -> None:
    for _ in range(6000):
        if not _is_running(pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"the process {pid} was left behind")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


FORKED = """
import os, signal, socket, subprocess, sys, time
connection = socket.socket(fileno=int(sys.argv[1]))
stream = connection.makefile("rwb")
while head := stream.read(8):
    stream.read(int.from_bytes(head, "little"))
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    other = subprocess.Popen(["sleep", "600"])
    with open("PIDS", "w") as file:
        file.write(f"{child} {other.pid}")
    if DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    stream.write(len(READY).to_bytes(8, "little") + READY)
    stream.flush()
"""


@pytest.mark.parametrize("dies", [True, False])
def test_what_a_worker_has_forked_ends_with_it(tmp_path: Path, dies: bool) -> None:
    ready, pids, program = wire.encode({"kind": "ready"}), tmp_path / "pids", tmp_path / "forked.py"
    program.write_text(FORKED.replace("PIDS", str(pids)).replace("READY", repr(ready)).replace("DIES", str(dies)))
    command = [sys.executable, str(program)]
    if dies:  # the fork holds the socket: without anybody who waits for the process, this takes the whole hour
        with pytest.raises(RequestError, match="died while it loaded: it was ended by signal 9"):
            IsolatedScorer("forked", command, {"device": "cpu"}, 3600, 3600)
    else:
        IsolatedScorer("forked", command, {"device": "cpu"}, 3600, 3600).close()
    for pid in map(int, pids.read_text().split()):
        _wait_until_ended(pid)


def test_what_is_private_to_the_environment_is_found_there_and_a_black_box_gives_scores() -> None:
    reward = load_reward("private_to_mine:Constant@mine")
    assert reward.differentiable is False
    assert torch.equal(reward(IMAGES.clone().requires_grad_(True), PROMPTS), torch.ones(2))
    reward.close()


def test_a_registered_reward_lives_elsewhere_too_and_one_that_says_nothing_is_tried() -> None:
    reward = load_reward("colourfulness@mine")
    here = load_reward("colourfulness")
    torch.testing.assert_close(reward(IMAGES, PROMPTS), here(IMAGES, PROMPTS), rtol=0, atol=0)
    scorer = reward.scorer
    scorer.load["name"] = f"{FILE}:through_numpy"
    reward.close()
    reward = ProxyReward("numpy", scorer)
    reward._differentiable = None
    assert not reward(IMAGES.clone().requires_grad_(True), PROMPTS).requires_grad
    assert reward.differentiable is False
    reward.close()


STARTS = {
    "unknown environment": ("colourfulness@mien", {}, r"no environment named 'mien'\. Did you mean 'mine'\?"),
    "nothing registered": ("colourfulness@isolated", {}, "No plugin has an environment for .* 'colourfulness'"),
    "unknown reward": ("colorfulnes@mine", {}, r"no reward named 'colorfulnes'\. Did you mean 'colourfulness'\?"),
    "dies": (f"{FILE}:Moody@mine", {"fail": "die"}, "died while it loaded: it ended with exit code 4; .*cannot go on"),
    "timeout": ("colourfulness@mine", {"timeout": 0}, r"option timeout of the reward 'colourfulness@mine' is 0"),
    "negative batch": ("colourfulness@mine", {"batch": -1}, "is -1; expected a whole number, 0 or more"),
    "no json": (f"{FILE}:Moody@mine", {"factor": torch.zeros(1)}, "options of the reward .* cannot be sent"),
    "too slow": ("colourfulness@mine", {"startup_timeout": 0.05}, "within 0.05 s.*startup_timeout=SECONDS"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options", "sentence"), STARTS.values(), ids=STARTS)
def test_a_reward_that_cannot_start_is_a_wrong_request(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        load_reward(name, **options)


@pytest.mark.parametrize(
    ("name", "entry", "options", "sentence", "wrong"),
    [
        ("./gone.py:f", "", {}, r"There is no file gone\.py", True),
        (f"{FILE}:Moody", "", {"facto": 1}, "Did you mean 'factor'", True),
        (f"{FILE}:Moody", "", {"fail": "raise"}, "ValueError: no such weights", True),
        ("hps", "dipp_hps.original:load", {"versoin": 1}, "Did you mean 'version'", True),
        ("hps", "no_such_module:load", {}, "importing no_such_module failed with ModuleNotFoundError", True),
    ],
)
def test_a_worker_says_why_it_cannot_load(
    name: str, entry: str, options: dict[str, object], sentence: str, wrong: bool
) -> None:
    content = {"kind": "load", "name": name, "entry": entry, "options": options, "device": "cpu", "paths": []}
    answer = wire.decode(Worker().answer(wire.encode(content)))
    assert re.search(sentence, wire.error_of(answer) or "")
    assert answer.content["wrong_request"] is wrong


@pytest.mark.parametrize("data", [b"", b"x" * 50, wire.encode({"kind": "exec"}), wire.encode({"kind": "load"})])
def test_a_worker_answers_invalid_messages_with_an_error(data: bytes) -> None:
    assert wire.error_of(wire.decode(Worker().answer(data)))


@pytest.mark.parametrize("value", ["soon", True, None, float("nan"), float("inf"), -1])
def test_a_timeout_is_a_positive_number(value: object) -> None:
    with pytest.raises(RequestError, match=r"The option timeout of the reward 'r' is .*; expected a positive number\."):
        check_numbers("r", {"timeout": value})


def test_an_environment_of_another_python_is_refused(environment: Path) -> None:
    other = environment.parent / "old"
    other.mkdir(exist_ok=True)
    (other / environments.MARKER).write_text('{"python": "2.7"}')
    with pytest.raises(RequestError, match=r"made with Python 2\.7, .*dipp reward install old --force"):
        load_reward("colourfulness@old")
    (other / environments.MARKER).write_text("{half")
    with pytest.raises(RequestError, match="no environment named 'old'"):
        load_reward("colourfulness@old")


def test_moved_sources_are_shared_anew(environment: Path) -> None:
    path = environments.packages_of(environment) / environments.SHARING
    path.write_text("/nowhere\n")
    environments.share(environment)
    lines = path.read_text().splitlines()
    assert lines == environments.shared_paths()
    assert any((Path(line) / "torch").is_dir() for line in lines)
    assert any((Path(line) / "dipp_toolkit").is_dir() for line in lines)
    assert any((Path(line) / "dipp_pixels").is_dir() for line in lines)


FAKE = """
import socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
replies = iter(open("REPLIES", "rb").read().split(b"<<END>>"))
stream = connection.makefile("rwb")
while head := stream.read(8):
    stream.read(int.from_bytes(head, "little"))
    reply = next(replies)
    if reply.startswith(b"RAW"):
        stream.write(reply[3:])
    else:
        stream.write(len(reply).to_bytes(8, "little") + reply)
    stream.flush()
"""


def _fake(tmp_path: Path, replies: list[bytes]) -> IsolatedScorer:
    """A worker that answers with these bytes, whatever it is asked; it says that it is ready first."""
    ready = wire.encode({"kind": "ready", "differentiable": True})
    program, content = tmp_path / "fake.py", tmp_path / "replies"
    program.write_text(FAKE.replace("REPLIES", str(content)))
    content.write_bytes(b"<<END>>".join([ready, *replies]))
    return IsolatedScorer("fake", [sys.executable, str(program)], {"device": "cpu"}, 5, 5)


def test_fuzzed_answers_are_a_sentence_each(tmp_path: Path) -> None:
    draw = random.Random(1)
    good = wire.encode_scores(torch.ones(2), IMAGES)
    replies = []
    while len(replies) < 250:
        data = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(min(len(data), 320))] = draw.randrange(256)
        data = data[: draw.choice([len(data), draw.randrange(len(data))])]
        if b"<<END>>" not in data and not data.startswith(b"RAW"):
            replies.append(bytes(data))
    reward = ProxyReward("fake", _fake(tmp_path, [*replies, good]))
    refused = 0
    for _ in replies:
        try:
            reward(IMAGES.clone().requires_grad_(True), PROMPTS)
        except DippError as error:
            refused += 1
            assert re.match(r"^[^\n]{10,700}$", str(error))
    assert refused > 200
    assert torch.equal(reward(IMAGES.clone().requires_grad_(True), PROMPTS).detach(), torch.ones(2))
    reward.close()


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (b"RAW" + (2**30).to_bytes(8, "little"), "1073741824 bytes was announced; expected"),
        (b"RAW" + b"\xff" * 8, "bytes was announced"),
        (wire.encode_error("no\nluck"), "in its environment: no luck"),
        (wire.encode({"kind": "ready"}), "is of kind 'ready'; expected 'scores'"),
        (wire.encode_scores(torch.ones(3), None), r"shape \(3,\) as scores"),
    ],
)
def test_an_invalid_reply_of_a_worker_is_a_sentence(tmp_path: Path, reply: bytes, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        ProxyReward("fake", _fake(tmp_path, [reply]))(IMAGES, PROMPTS)


def test_a_program_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(RequestError, match="Cannot start /nowhere/python: No such file"):
        IsolatedScorer("r", ["/nowhere/python"], {"device": "cpu"}, 5, 5)
