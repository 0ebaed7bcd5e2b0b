"""What is said of a judge, in its address and by its options, checked before any server is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dipp_toolkit.errors import RequestError
from dipp_toolkit.rewards.remote.proxy import check_numbers
from dipp_toolkit.rewards.remote.wire import one_line

from .template import Template, load_template

KEY_VARIABLE = "DIPP_JUDGE_KEY"
EXAMPLE = "judge:http://127.0.0.1:8000/v1?model=NAME"
TEMPLATE = "shows"
OF_ADDRESS = ("model", "template", "against")
"""Options that may stand in the address, because they say whose opinion it is; the others say how it is asked."""


def split_address(address: str, options: Mapping[str, str | None], client: str = "judge") -> tuple[str, dict[str, str]]:
    """The server's address, and what the query and the options say.

    Args:
        address: as typed after `judge:`.
        options: all that may stand in the address; None where one is not given.
        client: the reward's registered name, for messages.

    Raises:
        RequestError: it is no address, it names no model, something is said twice, or its query has what does not
            belong there. Values are not shown, as one may be a key.
    """
    example = EXAMPLE.replace("judge:", f"{client}:", 1)
    if not address:
        raise RequestError(f"The reward '{client}' needs the address of its server, as in --reward '{example}'")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:  # whose text quotes the address
        raise RequestError(f"The address of a judge is invalid; expected one such as {example}") from None
    if parts.username is not None or parts.password is not None:
        raise RequestError(
            f"The address of a judge contains a user name; a key belongs in the environment variable {KEY_VARIABLE}."
        )
    if not parts.hostname or parts.fragment or any(letter.isspace() for letter in address):
        raise RequestError(f"The address of a judge is invalid; expected one such as {example}")
    pairs = parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)  # a plus is no blank, as in a form
    names = [name for name, _ in pairs] + [name for name, value in options.items() if value is not None]
    unknown = next((name for name in names if name not in options), None)
    if unknown is not None:
        raise RequestError(
            f"The address of a judge may say {', '.join(sorted(options))}, and not '{one_line(unknown, 40)}'. Other "
            f"options are given by --set reward.NAME.OPTION=VALUE, a key in the environment variable {KEY_VARIABLE}."
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"A judge's {twice} is given twice, in its address or among its options; give it once.")
    said = dict(pairs) | {name: value for name, value in options.items() if value is not None}
    if not said.get("model"):
        raise RequestError(f"The address of a judge names no model; expected one such as {example}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/chat/completions"), said


def checked(
    name: str,
    address: str,
    asked: Mapping[str, str | None],
    concurrency: int,
    budget: int,
    tolerate: float,
    timeout: float,
    retries: int,
    extra: Any,
    client: str = "judge",
) -> tuple[str, dict[str, str], Template]:
    """The server's address, what is said of the question, and its template, once all options can be used.

    Raises:
        RequestError: one cannot.
    """
    base, said = split_address(address, asked, client)
    template = load_template(said.get("template", TEMPLATE))
    if template.ask == "questions":
        raise RequestError(
            f"The template of the reward '{name}' asks for questions about a prompt and shows no image; it is for "
            "soft-tifa:ADDRESS. Name another template."
        )
    against = said.get("against")
    if template.ask == "comparison" and against is None:
        raise RequestError(
            f"The template of the reward '{name}' compares two images; name a folder with one of each prompt to "
            "compare with: against=FOLDER"
        )
    if template.ask != "comparison" and against is not None:
        raise RequestError(
            f"The template of the reward '{name}' shows one image and compares it with nothing; leave against out."
        )
    check_numbers(name, {"timeout": timeout, "concurrency": concurrency}, {"budget": budget, "retries": retries})
    check_numbers(name, {}, {"concurrency": concurrency})
    if isinstance(tolerate, bool) or not isinstance(tolerate, (int, float)) or not 0 <= tolerate < 1:
        raise RequestError(f"The option tolerate of '{name}' is {tolerate!r}; expected a share in [0, 1).")
    if extra is not None and not isinstance(extra, Mapping):
        raise RequestError(f"The option extra of '{name}' is no mapping; expected fields of a request.")
    return base, said, template
