"""The type checker of the test run."""

from typing import Any, Self

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from numpy.typing import NDArray

check = beartype(
    conf=BeartypeConf(
        # beartype takes the length of a string type for part of the hint, so no array of strings
        # would fit; and methods are decorated one by one, so it cannot tell whose Self is meant.
        hint_overrides=FrozenDict({NDArray[np.str_]: np.ndarray, Self: Any}),
        # As for mypy, an int is a float.
        is_pep484_tower=True,
    )
)
