"""A plugin that registers one reward and then falls over."""

from typing import Any

from dipp_toolkit import hookimpl


@hookimpl
def dipp_register_rewards(register: Any) -> None:
    register("half-made-reward", dict)
    raise RuntimeError("the second half was never written")
