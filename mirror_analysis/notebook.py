"""Tables as a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Sequence

# From white to a blue that black print can still be read on.
_DEEPEST = (0x8C, 0xBF, 0xE6)


def shaded_table(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    hints: Sequence[Sequence[str]],
    caption: str,
) -> str:
    """A table as HTML, cells shaded from the least value, or 0, to the largest.

    Args:
        values: [row][column] numbers; None for what is not defined.
        rows: labels down.
        columns: labels across.
        hints: [row][column] what a cell says when pointed at.
        caption: a line above, in plain text.
    """
    known = [v for line in values for v in line if v is not None] or [0.0]
    low, high = min(0.0, *known), max(known)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = []
    for name, line, said in zip(rows, values, hints, strict=True):
        cells = "".join(_cell(v, low, high, hint) for v, hint in zip(line, said, strict=True))
        body.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


def _cell(value: float | None, low: float, high: float, hint: str) -> str:
    if value is None:
        return f'<td title="{html.escape(hint)}">not defined</td>'
    share = (value - low) / (high - low) if high > low else 0.0
    shade = "".join(f"{round(255 + share * (c - 255)):02x}" for c in _DEEPEST)
    style = f"background:#{shade};color:#000;text-align:right"
    return f'<td style="{style}" title="{html.escape(hint)}">{value:.3f}</td>'
