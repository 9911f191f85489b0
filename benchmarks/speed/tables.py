"""Markdown of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.speed.record import Benchmarks, Check, Row, Timing


def document(found: Benchmarks, figures: Sequence[str]) -> str:
    """Everything as one page."""
    m = found.machine
    packages = ", ".join(f"{k} {v}" for k, v in m.packages.items())
    lines = [
        f"# Speed on {m.processor}, {m.threads} threads",
        "",
        f"{m.cores} cores, {m.memory_gb:g} GB, {m.system}, Python {m.python}, {packages},"
        f" products by {m.blas or 'an unknown library'}.",
        "",
        "Inputs are float32 except trajectories (float64). Every side runs in a process of its"
        " own with the same number of threads on the same files; imports, loading and a first run"
        " on a small part of the data come before the clock. The sides of a row take turns, and"
        " the least time of each counts. A ratio compares two times of the same run. *wall* is"
        " seconds by the clock, *CPU* processor seconds over all threads; where other work was"
        " on the machine (the load says so) the ratio of CPU seconds is the one to trust.",
        "",
        "## Aims",
        "",
        *_table(
            ("row", "what", "aim", "measured", "by CPU seconds", ""),
            [_check(r, c) for r in found.rows for c in r.checks],
        ),
        "",
        *(line for name in figures for line in (f"![{name}]({name})", "")),
        "## Times",
        "",
    ]
    for row in found.rows:
        lines += [*_row(row), ""]
    if found.growth is not None:
        fixed = ", ".join(f"{v} {k}" for k, v in found.growth.fixed.items())
        lines += [
            "## Growth",
            "",
            "Each default measure alone with p-values and intervals, beside values alone of linear"
            " CKA;"
            f" what does not grow stays at {fixed}"
            f" on both sides. {found.growth.created}, {_tree(found.growth)}. The least-squares"
            " exponent of the larger half of each curve:",
            "",
            *_table(("", *_ALONG), _exponents(found)),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


_ALONG = ("samples", "layers", "features")


def _exponents(found: Benchmarks) -> list[tuple[str, ...]]:
    import numpy as np

    assert found.growth is not None
    out = []
    for name in dict.fromkeys(p.name for p in found.growth.points):
        cells = [name]
        for along in _ALONG:
            curve = [
                (p.size, p.cpu) for p in found.growth.points if (p.along, p.name) == (along, name)
            ]
            upper = curve[len(curve) // 2 - (len(curve) < 4) :]
            if len(upper) < 2:
                cells.append("")
                continue
            size, cpu = np.log(np.maximum(np.array(upper, dtype=float).T, 1e-6))
            cells.append(f"{np.polyfit(size, cpu, 1)[0]:.1f}")
        out.append(tuple(cells))
    return out


def _row(row: Row) -> list[str]:
    loads = [t.load for s in row.timings for t in s.turns]
    load = f"load {min(loads):.1f} to {max(loads):.1f}, " if loads else ""
    quick = "small sizes of --quick; " if row.quick else ""
    return [
        f"### {row.name}",
        "",
        f"{row.work[0].upper()}{row.work[1:]}. ({quick}{load}{row.created}, {_tree(row)})",
        "",
        *_table(
            ("side", "wall s", "CPU s", "peak MB", "value", "off ours by", "remarks"),
            [_timing(t) for t in row.timings],
        ),
    ]


def _tree(made: Row | object) -> str:
    commit, dirty = getattr(made, "commit", ""), getattr(made, "dirty", False)
    return f"commit {commit or 'unknown'}{' with changes' if dirty else ''}"


def _check(row: Row, check: Check) -> tuple[str, ...]:
    return (
        row.name,
        check.what,
        "" if check.aim is None else f"{check.sense} {_amount(check.aim, check.unit)}",
        check.missing or _amount(check.measured, check.unit),
        "" if check.cpu is None else _amount(check.cpu, check.unit),
        "small sizes, not judged" if row.quick else verdict(check),
    )


def verdict(check: Check) -> str:
    """In a word; where the clock and the processor's seconds disagree, it says so."""
    by_cpu = None if check.cpu is None else check.meets(check.cpu)
    if check.met is None:
        return ""
    if by_cpu not in (None, check.met):
        return f"{'met' if check.met else 'fell short'} by the clock only"
    return "met" if check.met else "**fell short**"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "MB":
        return f"{value:.0f} MB"
    return f"{value:,.0f} x" if value >= 100 else f"{value:.3g} x"


def _timing(timing: Timing) -> tuple[str, ...]:
    name = f"**{timing.name}**" if timing.kind == "ours" else timing.name
    title = f"{name} {timing.version}".strip()
    if not timing.turns:
        return (title, "", "", "", "", "", timing.skipped)
    scaled = f"measured {timing.wall / timing.scale:.3g} s" if timing.scale != 1 else ""
    count = len(timing.turns)
    turns = f"best of {count} turns" if count > 1 else "one turn"
    return (
        title,
        f"{timing.wall:.3g}",
        f"{timing.cpu:.3g}",
        "" if timing.peak_mb is None else f"{timing.peak_mb:.0f}",
        "" if timing.value is None else f"{timing.value:.6g}",
        "" if timing.off is None else f"{timing.off:.1e}",
        "; ".join(part for part in (timing.note, scaled, turns) if part),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
