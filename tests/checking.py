"""The type checker of the test run."""

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from numpy.typing import NDArray

# beartype takes the length of a string type for part of the hint, so no array of strings would fit.
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({NDArray[np.str_]: np.ndarray})))
