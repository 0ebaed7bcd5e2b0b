"""The checker behind every annotated function in the tests: beartype, an int accepted where a float is asked for."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
