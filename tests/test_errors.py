"""Messages say what was given, what is near, and how to mend it."""

import inspect

import pytest

from mirror_analysis import errors
from mirror_analysis.errors import (
    FormatError,
    MirrorError,
    MissingDependencyError,
    UnknownNameError,
)


def test_unknown_name_gives_the_nearest_and_all():
    error = UnknownNameError("measure", "linear_cak", ["rbf_cka", "linear_cka"])
    assert str(error) == (
        "unknown measure 'linear_cak'; did you mean 'linear_cka'? (known: linear_cka, rbf_cka)"
    )


def test_unknown_name_guesses_nothing_far_away():
    assert str(UnknownNameError("task", "zzz", {"reach", "push"})) == (
        "unknown task 'zzz' (known: push, reach)"
    )


def test_unknown_name_where_nothing_is_known():
    assert str(UnknownNameError("label", "task", ())) == "unknown label 'task' (known: none)"


def test_missing_dependency_names_the_extra():
    error = MissingDependencyError("metaworld", "the simulator", "pip install 'x[sim]'")
    assert str(error) == (
        "the simulator needs metaworld, which is not installed; pip install 'x[sim]'"
    )


CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_caught_as_one(kind):
    assert issubclass(kind, MirrorError)
    assert kind.__doc__


def test_a_message_is_one_line_whatever_names_are_in_it():
    odd = "a\nb\x1b[2J\u202ec\x00\udcff é"
    assert str(FormatError(odd)) == "a b\\x1b[2J\\u202ec\\x00\\udcff é"
    assert str(UnknownNameError("kind", odd, ["x\r\ny"])).isprintable()
