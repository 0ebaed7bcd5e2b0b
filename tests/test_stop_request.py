"""Signals: the first is noted, a second Ctrl-C does not wait, a second SIGTERM does."""

from __future__ import annotations

import os
import signal

import pytest

from dipp_toolkit.stop_request import StopRequest


def test_a_second_sigterm_waits_as_the_first_does() -> None:
    with StopRequest().noted() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.signal is signal.SIGTERM


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_a_signal_does_not_wait(first: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest().noted() as stop:
        os.kill(os.getpid(), first)
        assert stop.signal is first
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest().noted():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
