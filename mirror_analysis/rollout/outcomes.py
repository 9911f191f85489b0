"""How every episode of a roll-out ended, and its file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mirror_analysis.errors import FormatError, MissingFileError, ShapeError
from mirror_analysis.writing import write_whole


class Outcomes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a policy fared in Meta-World, episode by episode; row t, column e is one episode.

    Attributes:
        policy: name of the policy.
        tasks: [task] names.
        seeds: [episode] environment seeds, the same for every task and every policy.
        success: [task][episode] whether the task was done within the horizon.
        steps: [task][episode] environment steps taken: up to success, or all of the horizon.
        horizon: steps an episode may take.
        environment_seed: what the environment seeds were made from.
        condition: "plain", or what the pictures were like: "nuisance", or a variant such as
            "camera-side".

    Raises:
        ShapeError: if there is not one success and one number of steps for every episode.

    Example:
        >>> outcomes.rate, outcomes.success[0][7]
        (0.78, True)
    """

    policy: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    success: tuple[tuple[bool, ...], ...]
    steps: tuple[tuple[int, ...], ...]
    horizon: int
    environment_seed: int
    condition: str

    def __post_init__(self) -> None:
        for name, rows in (("success", self.success), ("steps", self.steps)):
            if [len(row) for row in rows] != [len(self.seeds)] * len(self.tasks):
                raise ShapeError(
                    f"{name} of {self.policy} has rows of {[len(row) for row in rows]} episodes;"
                    f" needed {len(self.tasks)} rows of {len(self.seeds)}, one per task"
                )

    @property
    def rate(self) -> float:
        """Share of all episodes that were successes, in [0, 1]."""
        return sum(map(sum, self.success)) / (len(self.tasks) * len(self.seeds))


def save_outcomes(outcomes: Outcomes, path: Path) -> None:
    """Writes outcomes as JSON, whole or not at all.

    Args:
        outcomes: what to write.
        path: such as "rollouts/aligned-s0.json".
    """
    write_whole(path, msgspec.json.encode(outcomes))


def load_outcomes(path: Path) -> Outcomes:
    """Reads what `save_outcomes` wrote.

    Raises:
        MissingFileError: if it is not there.
        FormatError: if it is something else.
    """
    if not path.is_file():
        raise MissingFileError(f"no outcomes at {path}; save_outcomes writes them")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcomes)
    except (msgspec.DecodeError, UnicodeDecodeError, ShapeError) as error:
        raise FormatError(f"{path} holds no outcomes of roll-outs: {error}") from None
