"""The toolkit's own terms, registered like anybody's."""

from __future__ import annotations

from ..hooks import Register, hookimpl


@hookimpl
def dipp_register_terms(register: Register) -> None:
    register(
        "integral_kl",
        "dipp_toolkit.terms.integral_kl:IntegralKL.build",
        summary="integral KL to the reference, guidance as implicit reward (Diff-Instruct, DI++)",
    )
