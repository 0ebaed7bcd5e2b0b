"""Signals: the first is noted, a second Ctrl-C does not wait, a second SIGTERM does."""

from __future__ import annotations

import os
import signal

import pytest

from dipp_toolkit.training.stepping import StopNow, StopRequest


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_where_nothing_would_be_lost_a_signal_does_not_wait(number: signal.Signals) -> None:
    with pytest.raises(StopNow), StopRequest().noted() as stop, stop.at_once():
        os.kill(os.getpid(), number)
        pytest.fail("it waits")
    assert stop.signal is number


def test_a_signal_that_was_noted_counts_where_the_next_need_not_wait() -> None:
    with pytest.raises(StopNow), StopRequest().noted() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
        with stop.at_once():
            pytest.fail("it waits")


def test_what_is_shared_waits_also_where_nothing_would_be_lost() -> None:
    with StopRequest().noted() as stop, stop.at_once(False):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal is signal.SIGTERM


def test_nohup_keeps_a_closed_terminal_from_ending_a_run() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().noted() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


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
