"""What comes out of a pickle in the place of classes nobody runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Named:
    """A class or function a pickle mentions, by name only.

    Attributes:
        kind: "module.Name", as the pickle says it.
    """

    kind: str


@dataclass(eq=False)
class Record:
    """An object of a class that was not imported: what the pickle stored, and nothing done.

    Attributes:
        kind: "module.Class".
        arguments: what the class or function would have been called with.
        fields: what its attributes would have been.
        items: what it would have held as a list, or (key, value) pairs as a dict.
    """

    kind: str
    arguments: tuple[object, ...] = ()
    fields: dict[str, object] = field(default_factory=dict)
    items: list[object] = field(default_factory=list)
