"""What a measurement is: a value beside its null, its interval and its ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mirror_analysis.errors import FormatError, MissingFileError, UnknownNameError
from mirror_analysis.notebook import shaded_table
from mirror_analysis.provenance import Provenance
from mirror_analysis.writing import write_whole

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["pair", "control", "reference", "difference"]
Parameter = str | int | float | bool


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A confidence interval.

    Attributes:
        low: lower end, in the unit of the value.
        high: upper end.
        level: coverage, in (0, 1).
        method: how it was made, such as "jackknife over 32 groups of episodes".
    """

    low: float
    high: float
    level: float = 0.95
    method: str = ""


class Null(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the measure gives where there is no relation.

    Attributes:
        mean: its mean under the null.
        sd: its standard deviation under the null.
        draws: permutations drawn; 0 when the null is known in closed form.
        scheme: what was permuted, such as "episodes" or "episodes within task".
    """

    mean: float
    sd: float
    draws: int
    scheme: str


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One measured number with everything needed to judge it.

    Attributes:
        measure: name of the function that gave it, such as "linear_cka".
        value: the number; None when it is not defined, and then `undefined` says why.
        x: name of the first representation, y: of the second.
        x_layer: layer of the first, y_layer: of the second ("" when there is one only).
        interval: confidence interval of the value.
        null: what no relation gives.
        p_value: one-sided permutation p of this cell alone, in (0, 1].
        p_max: p corrected for taking the maximum over all cells of the grid.
        q_value: false discovery rate at which this cell counts among those of its grid
            (Benjamini and Hochberg 1995).
        ceiling: the largest value the measure can take here (log of the batch for InfoNCE).
        n: independent units (episodes) behind the value.
        parameters: settings of the estimator.
        within: label inside whose groups the measure was taken ("" for over all).
        split: the part of the data ("test").
        stage: "frozen", "before" or "after" alignment.
        condition: condition of the study, such as "plain" or "nuisance".
        role: a pair under study, a matched control, a reference that sees more than the
            layer does, or a difference of two.
        seed: training seed of the models; None when averaged over seeds.
        undefined: reason for a missing value.
        note: what a reader of this number must know, one sentence.
    """

    measure: str
    value: float | None
    x: str
    y: str
    n: int
    x_layer: str = ""
    y_layer: str = ""
    interval: Interval | None = None
    null: Null | None = None
    p_value: float | None = None
    p_max: float | None = None
    q_value: float | None = None
    ceiling: float | None = None
    parameters: dict[str, Parameter] = {}
    within: str = ""
    split: str = "test"
    stage: str = "frozen"
    condition: str = ""
    role: Role = "pair"
    seed: int | None = None
    undefined: str = ""
    note: str = ""

    @property
    def summary(self) -> str:
        """The number with what is needed to judge it, in a line."""
        names = " x ".join(n for n in (self.x_layer or self.x, self.y_layer or self.y) if n)
        if self.value is None:
            return f"{names}: not defined, {self.undefined}"
        text = f"{names}: {self.value:.3f}"
        if self.interval is not None:
            text += f" [{self.interval.low:.3f}, {self.interval.high:.3f}]"
        if self.null is not None:
            text += f", no relation gives {self.null.mean:.3f}"
        p, kind = (self.p_value, "p") if self.p_max is None else (self.p_max, "corrected p")
        return text if p is None else f"{text}, {kind} {p:.2g}"


_COLUMNS = (
    "x", "y", "x_layer", "y_layer", "measure", "value", "low", "high", "null_mean", "p_value",
    "p_max", "q_value", "ceiling", "n", "within", "condition", "role", "seed",
)  # fmt: skip


def frame(scores: Iterable[Score]) -> pd.DataFrame:
    """A tidy table, one row per score.

    Returns:
        Columns x, y, x_layer, y_layer, measure, value, low, high, null_mean, p_value, p_max,
        q_value, ceiling, n, within, condition, role, seed, then one column per estimator parameter.
    """
    import pandas as pd

    rows = []
    for s in scores:
        row: dict[str, object] = {c: getattr(s, c, None) for c in _COLUMNS}
        row["low"] = s.interval.low if s.interval else None
        row["high"] = s.interval.high if s.interval else None
        row["null_mean"] = s.null.mean if s.null else None
        rows.append(row | {k: v for k, v in s.parameters.items() if k not in row})
    return pd.DataFrame(rows, columns=None if rows else list(_COLUMNS))


def select(scores: Iterable[Score], **fields: object) -> list[Score]:
    """Scores whose attributes, or else parameters, equal the given values.

    Example:
        >>> [s.value for s in select(result.scores, measure="linear_cka", role="control")]
    """
    return [s for s in scores if all(_field(s, k) == v for k, v in fields.items())]


def _field(score: Score, name: str) -> object:
    if name in Score.__struct_fields__:
        return getattr(score, name)
    return score.parameters.get(name)


class Comparison(msgspec.Struct, frozen=True):
    """All layers of x against all layers of y in all measures.

    Attributes:
        scores: one per layer pair and measure.
        replicates: jackknife replicates by (measure, x_layer, y_layer), each [fold]; in memory
            only, so that two comparisons on the same rows can be subtracted with an interval.
    """

    scores: tuple[Score, ...]
    replicates: Mapping[tuple[str, str, str], Sequence[float]] = {}

    @property
    def frame(self) -> pd.DataFrame:
        """The scores as a tidy table."""
        return frame(self.scores)

    def grid(self, measure: str, attribute: str = "value") -> pd.DataFrame:
        """One measure as a table, x layers down and y layers across, in layer order.

        Args:
            measure: such as "linear_cka".
            attribute: "value", "p_value" or "p_max".
        """
        import pandas as pd

        cells = [s for s in self.scores if s.measure == measure]
        if not cells:
            raise UnknownNameError("measure", measure, {s.measure for s in self.scores})
        rows = list(dict.fromkeys(s.x_layer for s in cells))
        columns = list(dict.fromkeys(s.y_layer for s in cells))
        table = pd.DataFrame(index=rows, columns=columns, dtype=float)
        for s in cells:
            table.loc[s.x_layer, s.y_layer] = getattr(s, attribute)
        return table

    def best(self, measure: str) -> Score:
        """The cell with the largest value; judge it by its `p_max`, never by its `p_value`."""
        cells = [s for s in self.scores if s.measure == measure and s.value is not None]
        if not cells:
            raise UnknownNameError("measure", measure, {s.measure for s in self.scores})
        return max(cells, key=lambda s: s.value if s.value is not None else float("-inf"))

    def _repr_html_(self) -> str:
        return "".join(self._panel(m) for m in dict.fromkeys(s.measure for s in self.scores))

    def _panel(self, measure: str) -> str:
        cells = [s for s in self.scores if s.measure == measure]
        columns = list(dict.fromkeys(s.y_layer for s in cells))
        lines = [cells[i : i + len(columns)] for i in range(0, len(cells), len(columns))]
        known = [s for s in cells if s.value is not None]
        best = (
            f"best: {self.best(measure).summary}" if known else f"not defined: {cells[0].undefined}"
        )
        return shaded_table(
            [[s.value for s in line] for line in lines],
            rows=[line[0].x_layer or cells[0].x for line in lines],
            columns=[name or cells[0].y for name in columns],
            hints=[[s.summary for s in line] for line in lines],
            caption=f"{measure}; {best}",
        )


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence that the data support or do not.

    Attributes:
        name: short identifier, such as "excess-recall".
        statement: the claim in words, with its numbers.
        holds: whether the data support it; None when they cannot tell.
        score: the number it rests on.
    """

    name: str
    statement: str
    holds: bool | None
    score: Score


class EmbeddingMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both models' episodes in one plane.

    Attributes:
        method: "tsne" or "umap".
        stage: "before" or "after" alignment.
        points: [point, 2] coordinates, no unit.
        model: name of the model of each point.
        episode: episode id of each point; the same id stands once per model.
        task: task of each point.
    """

    method: str
    stage: str
    points: list[tuple[float, float]]
    model: list[str]
    episode: list[str]
    task: list[str]


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a study found, complete: figures and documents are made from this alone.

    Attributes:
        schema: version of this structure.
        study: name of the definition; title: its title in words.
        models: display name of each side, such as {"x": "observation", "y": "execution"}.
        definition: the definition as it ran, with every override.
        provenance: versions, commit, device, seeds, checksums.
        data: which episodes were used, by split, as counts and fingerprints.
        findings: the claims, the headline first.
        scores: every number.
        maps: low-dimensional pictures.
        notes: what a reader must know, one sentence each.
    """

    study: str
    title: str
    models: dict[str, str]
    definition: dict[str, object]
    provenance: Provenance
    data: dict[str, object]
    findings: list[Finding]
    scores: list[Score]
    maps: list[EmbeddingMap]
    notes: list[str]
    schema: int = 1

    @property
    def frame(self) -> pd.DataFrame:
        """The scores as a tidy table."""
        return frame(self.scores)


def save_result(result: Result, path: Path) -> None:
    """Writes `result.json` whole or not at all."""
    write_whole(path, msgspec.json.encode(result))


def load_result(path: str | Path) -> Result:
    """Reads a `result.json`, or the one in a folder.

    Raises:
        MissingFileError: if it is not there.
        FormatError: if it is not a result of this version.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f"no result at {path}; `mirror run STUDY --out DIR` writes one")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not a mirror-analysis result: {error}") from None
