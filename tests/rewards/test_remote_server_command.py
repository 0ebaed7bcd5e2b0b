"""`dipp reward serve` as a process: says where it serves, serves, and ends when it is told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from dipp_cli.app import main
from dipp_toolkit.rewards.loading import load_reward


def test_it_serves_until_ctrl_c() -> None:
    command = [sys.executable, "-m", "dipp_cli", "reward", "serve", "colourfulness,sharpness", "--port", "0"]
    environment = {key: value for key, value in os.environ.items() if key != "DIPP_REWARD_TOKEN"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--device", "cpu"], **pipes, text=True, env=environment) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"Serving on cpu; use it with: --reward (\S+),(\S+)\n", line)
            assert found is not None, line + process.stderr.read()
            images = torch.rand(1, 3, 8, 8)
            for address, name in zip(found.groups(), ("colourfulness", "sharpness"), strict=True):
                assert address.endswith(f"/{name}")
                torch.testing.assert_close(load_reward(address)(images, [""]), load_reward(name)(images, [""]))
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
            assert process.stderr.read() == "dipp: Interrupted.\n"
            assert process.stdout.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("colourfulness --host 0.0.0.0", "Others can reach 0.0.0.0, so a token is needed"),
        ("colourfulnes", "Did you mean 'colourfulness'?"),
        (",", "Name the rewards to serve"),
        ("colourfulness --timeout 0", "--timeout is 0; expected a number above 0"),
        ("colourfulness --set reward.sharpness.x=1", "'sharpness' is not an option of a served reward"),
        ("colourfulness --set steps=1", "'steps' is not an option of a served reward"),
        ("colourfulness --token-file /nowhere", "Cannot read the token file /nowhere: No such file or directory."),
        ("colourfulness,colourfulness@mine", "would both be served as 'colourfulness'"),
        ("colourfulness --port 99999", "65535"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_a_sentence(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIPP_REWARD_TOKEN", raising=False)
    assert main(["reward", "serve", *words.split(), *([] if "--port" in words else ["--port", "0"])]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
