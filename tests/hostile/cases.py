"""What a hostile file is: how it is made, who is to read it, and the words it is refused with."""

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bait:
    """What hostile files are after.

    Attributes:
        folder: outside of theirs; whatever is opened in it is noticed.
        canary: a file that only code in a hostile file makes.
    """

    folder: Path
    canary: Path

    @property
    def secret(self):
        """A file of bytes that is no secret to anyone."""
        return self.folder / "secret.bin"

    def climbing(self, folder, name):
        """The way from a folder to a file of the bait, upwards."""
        return os.path.relpath(self.folder / name, folder)


@dataclass(frozen=True)
class Case:
    """One hostile file or folder.

    Attributes:
        make: writes it into an empty folder and gives the path to read.
        entry: "model", "episodes", "inspect" or "describe".
        words: a pattern of the message it is refused with; None where it may as well be read,
            because what is hostile in it is not looked at.
    """

    make: Callable[[Path, Bait], object]
    entry: str
    words: str | None


CASES = {}


def case(entry, words, *, name=""):
    """Enters a function into the table of cases."""

    def keep(make):
        known = name or make.__name__
        assert known not in CASES, known
        CASES[known] = Case(make, entry, words)
        return make

    return keep


class Runs:
    """Pickled, it is a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payload(bait):
    """An object whose pickle makes the canary."""
    return Runs(os.system, f"touch '{bait.canary}'")


def poison(bait, protocol=4):
    return pickle.dumps(payload(bait), protocol)
