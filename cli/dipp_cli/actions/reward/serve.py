"""What `dipp reward serve` does: load the rewards, print their addresses, serve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from dipp_toolkit.errors import RequestError
from dipp_toolkit.protocols import moved
from dipp_toolkit.rewards.groups import refuse_alone
from dipp_toolkit.rewards.loading import load_reward
from dipp_toolkit.rewards.remote.address import read_token
from dipp_toolkit.rewards.remote.serve import listen, public_names, run_server
from dipp_toolkit.utils.assignments import parse_assignments
from dipp_toolkit.utils.device import choose_device

from ...terminal.output import print_line, quiet_stdout


def serve_rewards(
    text: str,
    host: str,
    port: int,
    token_env: str,
    token_file: Path | None,
    limits: Mapping[str, float],
    assignments: list[str],
    device_name: str,
) -> None:
    """Serve until Ctrl-C.

    Raises:
        RequestError: a reward cannot be loaded, an option belongs to none, or the address cannot be used.
        KeyboardInterrupt: by Ctrl-C.
    """
    names = public_names([name.strip() for name in text.split(",") if name.strip()])
    if not names:
        raise RequestError("Name the rewards to serve: dipp reward serve hps,imagereward")
    for name, value in limits.items():
        if not 0 < value < math.inf:
            raise RequestError(f"--{name.replace('_', '-')} is {value:g}; expected a number above 0.")
    settings = parse_assignments(assignments)
    given = settings.pop("reward_options", {})
    for name in [*settings, *(name for name in given if name not in names.values())]:
        raise RequestError(f"'{name}' is not an option of a served reward; expected reward.NAME.OPTION=VALUE.")
    token = read_token(token_env, token_file)
    device = choose_device(device_name)
    listening = listen(host, port, token)  # before the rewards are loaded, which may take minutes
    try:
        with quiet_stdout():
            loaded = {short: load_reward(name, **given.get(name, {})) for short, name in names.items()}
            for short, reward in loaded.items():
                refuse_alone(names[short], reward, "A server")
            rewards = {short: moved(reward, device) for short, reward in loaded.items()}
    except BaseException:
        listening.close()
        raise

    def say(address: str) -> None:
        addresses = ",".join(f"{address}/{short}" for short in rewards)
        print_line(f"Serving on {device}; use it with: --reward {addresses}")

    from dipp_toolkit.rewards.remote.limits import Limits

    megabytes = limits["max_megabytes"]
    crowd = max(Limits.crowd, 4 * megabytes)
    bounds = Limits(megabytes, int(limits["max_images"]), timeout=limits["timeout"], crowd=crowd)
    run_server(rewards, listening, say, token=token, limits=bounds, device=device)
