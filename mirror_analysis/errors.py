"""One class per thing a caller can fix.

Every message says what was given, what was needed, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MirrorError(Exception):
    """A fault the caller can mend. The message is a single line fit to be shown as it is.

    Names out of files are part of messages; what a terminal would obey in them is spelt out.
    """

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UnknownNameError(MirrorError):
    """A name that is not in a table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        listing = ", ".join(names) if names else "none"
        super().__init__(f"unknown {kind} '{name}'{hint} (known: {listing})")


class MissingFileError(MirrorError):
    """A file or folder that should be there is not."""


class FormatError(MirrorError):
    """A file is there but is not what it should be."""


class ChecksumError(MirrorError):
    """A file's bytes are not the ones its record names."""


class DefinitionError(MirrorError):
    """A definition (TOML) does not fit its schema."""


class ShapeError(MirrorError):
    """An array has the wrong number of axes, or two arrays disagree in size."""


class DegenerateError(MirrorError):
    """Data on which the asked quantity is not defined: constant, too few rows, NaN."""


class PairingError(MirrorError):
    """Rows of two representations do not belong to the same episodes and steps."""


class StreamError(MirrorError):
    """Episodes lack a camera, state or label that is needed."""


class HookError(MirrorError):
    """A layer that was asked for did not run, or gave something that is not a tensor."""


class StoreError(MirrorError):
    """A feature store that belongs to other data, or is damaged."""


class DeviceError(MirrorError):
    """A device or precision that was asked for is not there."""


class SmallSampleWarning(MirrorError, UserWarning):
    """A value that is partly decided by how few samples there are, whatever they hold."""


class MissingDependencyError(MirrorError):
    """An optional package or system library is not installed."""

    def __init__(self, what: str, needed_for: str, mend: str) -> None:
        super().__init__(f"{needed_for} needs {what}, which is not installed; {mend}")
