"""Files written whole or not at all, the same bytes for the same result."""

from __future__ import annotations

import io
import re
from pathlib import Path

from matplotlib.figure import Figure

from mirror_analysis.errors import FormatError

FORMATS = ("pdf", "svg", "png")
# Dates and versions of the drawing library would change the bytes and say nothing.
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
}


def folder(path: Path) -> Path:
    """Makes a folder, with its parents.

    Raises:
        FormatError: if a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FormatError(
            f"{path} cannot be a folder because a file is in the way;"
            " name another folder or move the file"
        ) from None
    return path


def remove(place: Path, name: str, endings: tuple[str, ...]) -> None:
    """Takes away what an earlier result left under a name that this one cannot fill."""
    for ending in endings:
        (place / f"{name}.{ending}").unlink(missing_ok=True)


def encode(figure: Figure) -> dict[str, bytes]:
    """A figure as the bytes of a file of every format, at its print size."""
    # Laid out once: a layout per format takes thrice the time and may differ between them.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    made = {}
    for ending in FORMATS:
        stream = io.BytesIO()
        figure.savefig(stream, format=ending, metadata=_METADATA[ending])
        made[ending] = stream.getvalue()
    return made


def inline_svg(svg: str, name: str) -> str:
    """An SVG file as an element of a page: no prolog, and ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    # A style rule inside a page reaches the whole page, so it has to say where it ends.
    svg = svg.replace('<style type="text/css">*{', f'<style type="text/css">#svg-{name} *{{')
    return svg.replace("<svg ", f'<svg id="svg-{name}" aria-hidden="true" ', 1)
