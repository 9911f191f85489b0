"""A checkpoint as it lies on disk, and what its user decides about loading it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

from mirror_analysis.errors import DefinitionError, MissingFileError, UnknownNameError
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.kinds import kind_of
from mirror_analysis.files.places import inside
from mirror_analysis.models.model import require_calls


@final
@dataclass(frozen=True)
class Checkpoint:
    """A file or a folder; looked at, not yet read.

    Attributes:
        path: where it is.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            raise MissingFileError(
                f"no checkpoint at {self.path}; give a file or folder that is there, or a name of"
                " `mirror list`"
            )

    @cached_property
    def kind(self) -> str:
        """What its bytes are, whatever its name says; "folder" for a folder."""
        return "folder" if self.path.is_dir() else kind_of(self.path)

    @property
    def folder(self) -> Path:
        """The folder itself, or the one the file lies in."""
        return self.path if self.path.is_dir() else self.path.parent

    def has(self, name: str) -> bool:
        """Whether a folder holds a file of that name; False for a file."""
        return self.path.is_dir() and (self.path / name).is_file()

    def file(self, name: str) -> Path:
        """A file inside the folder, by the name that data give it.

        Raises:
            FormatError: if the name leads out of the folder.
            MissingFileError: if there is no such file.
        """
        path = inside(self.folder, name)
        if not path.is_file():
            raise MissingFileError(
                f"{self.path} has no {name}; fetch the whole checkpoint, that file included"
            )
        return path

    @cached_property
    def config(self) -> dict[str, Any]:
        """What `config.json` of a folder says; empty where there is none.

        Raises:
            FormatError: if it is not a JSON object.
        """
        return self.json("config.json") if self.has("config.json") else {}

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object inside the folder.

        Raises:
            MissingFileError: if it is not there.
            FormatError: if it is not a JSON object.
        """
        found: dict[str, Any] = read_json(self.file(name))
        return found


@final
@dataclass(frozen=True)
class Options:
    """What the user decides about loading, beyond which checkpoint.

    Attributes:
        calls: which call counts where a layer runs several times in one forward pass: "first",
            "last", "mean" or "step K".
        trusted: whether the user named this very checkpoint with `--trust`, so that code it
            brings may run.
        values: further settings, each named in the family's OPTIONS.
    """

    calls: str = "last"
    trusted: bool = False
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_calls(self.calls)

    def text(self, name: str, default: str = "") -> str:
        """A setting as it was given."""
        return self.values.get(name, default)

    def number(self, name: str, default: float) -> float:
        """A setting as a number.

        Raises:
            DefinitionError: if it is none.
        """
        return self._parsed(name, default, float, "a number")

    def count(self, name: str, default: int) -> int:
        """A setting as a whole number from 1 on.

        Raises:
            DefinitionError: if it is none.
        """
        found = self._parsed(name, default, int, "a whole number from 1 on")
        if found < 1:
            raise DefinitionError(f"option {name} is {found}; needed a whole number from 1 on")
        return found

    def numbers(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """A setting as numbers with commas between.

        Raises:
            DefinitionError: if it is not that.
        """

        def parse(text: str) -> tuple[float, ...]:
            return tuple(float(word) for word in text.split(","))

        return self._parsed(name, default, parse, "numbers with commas between")

    def choice(self, name: str, default: str, known: Iterable[str]) -> str:
        """A setting that is one of a few words.

        Raises:
            UnknownNameError: if it is another.
        """
        found = self.text(name, default)
        if found not in (words := list(known)):
            raise UnknownNameError(f"value of option {name}", found, words)
        return found

    def _parsed(self, name: str, default: Any, parse: Any, needed: str) -> Any:
        if name not in self.values:
            return default
        try:
            return parse(self.values[name])
        except ValueError:
            raise DefinitionError(
                f"option {name} is '{self.values[name]}'; needed {needed}"
            ) from None
