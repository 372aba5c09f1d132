"""Spans of time as people write them."""

import re
from typing import Final

import click

__all__ = ["read_span", "span"]

_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")


def read_span(text: str) -> int | None:
    """``90s``, ``30m``, ``24h`` or ``7d`` in ms; none if it is something else, or nothing long."""
    match = _SPAN.fullmatch(text)
    return int(match[1]) * _UNITS_MS[match[2]] or None if match is not None else None


def span(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    """A span of time in ms; none if none was given."""
    if text is None:
        return None
    found_ms = read_span(text)
    if found_ms is None:
        raise click.BadParameter("a number and its unit: 90s, 30m, 24h, 7d")
    return found_ms
