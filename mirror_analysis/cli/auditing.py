"""What `mirror audit` shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mirror_analysis.audit import Check, run_audit
from mirror_analysis.cli.terminal import table
from mirror_analysis.parallel import processes

Report = Callable[[str, int, int], None]
_VERDICTS = {True: "ok", False: "MISS", None: "shown"}


def audit(
    *, quick: bool, only: Sequence[str], seed: int, workers: int | None, report: Report
) -> tuple[dict[str, object], str, bool]:
    """Runs the audits.

    Returns:
        What there is to know as data, the same as text, and whether nothing was missed.
    """
    checks = run_audit(
        quick=quick,
        only=only,
        seed=seed,
        executor=processes(workers),
        progress=lambda done, total: report("auditing", done, total),
    )
    missed = [check for check in checks if check.passed is False]
    judged = sum(check.passed is not None for check in checks)
    data: dict[str, object] = {
        "checks": checks,
        "judged": judged,
        "missed": [f"{check.group}: {check.name}" for check in missed],
    }
    parts = [_part(checks)]
    if missed:
        parts.append(f"missed:\n{table([_row(check) for check in missed], _COLUMNS)}")
    parts.append(f"{judged} checks, {len(missed)} missed, {len(checks) - judged} shown")
    return data, "\n\n".join(parts), not missed


_COLUMNS = ["audit", "check", "measured", "wanted", "verdict", "note"]


def _part(checks: Sequence[Check]) -> str:
    return table([_row(check) for check in checks], _COLUMNS)


def _row(check: Check) -> dict[str, object]:
    return {
        "audit": check.group,
        "check": check.name,
        "measured": "" if check.measured is None else _number(check.measured, _digits(check)),
        "wanted": wanted(check),
        "verdict": _VERDICTS[check.passed],
        "note": check.note,
    }


def wanted(check: Check) -> str:
    """The band in words.

    Example:
        >>> wanted(Check("oracles", "linear_cka", 0.71, low=0.70, high=0.72))
        '0.700 to 0.720'
    """
    low, high, digits = check.low, check.high, _digits(check)
    if low is None and high is None:
        return ""
    if low is None or high is None:
        sign, end = ("at most", high) if low is None else ("at least", low)
        assert end is not None
        return f"{sign} {_number(end, digits)}"
    if high == low:
        return _number(low, digits)
    if high - low < 1e-4:
        return f"{_number((low + high) / 2, digits)} ± {(high - low) / 2:.0e}"
    return f"{_number(low, digits)} to {_number(high, digits)}"


def _digits(check: Check) -> int:
    """Decimals that tell the ends of the band apart."""
    if check.low is None or check.high is None or check.high <= check.low:
        return 3
    return min(8, max(3, math.ceil(-math.log10(check.high - check.low)) + 1))


def _number(value: float, digits: int) -> str:
    if value and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.0e}"
    return f"{value:.{digits}f}"
