"""The rows of the table: what is computed, who does it, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.speed import data
from benchmarks.speed.best import BEST
from benchmarks.speed.process import Kind, Side
from benchmarks.speed.running import Aim, Plan

_VALUES = {"draws": 0, "folds": 0}
_LAYERS = ("x_layers", "y_layers")
_PAIR = ("x", "y")
_OURS = "benchmarks.speed.ours:"
_PEERS = "benchmarks.speed.peers:"
_PUBLISHED = "benchmarks.speed.published:"
_FLOORS = "benchmarks.speed.floors:"


@dataclass(frozen=True)
class Sizes:
    """How much work the rows are.

    Attributes:
        samples, layers: of the grids; widths: features of x and of y.
        draws: permutations that calibrated-similarity is counted for.
        many: samples of the neighbour row.
        pairs: samples of the RSA row.
        stream: rows of the long stream, whose memory is compared with that of a tenth.
        paths: trajectories of the motion row.
    """

    samples: int = 2000
    layers: int = 12
    widths: tuple[int, int] = (768, 512)
    draws: int = 200
    many: int = 10_000
    pairs: int = 5000
    stream: int = 1_000_000
    paths: int = 1000


QUICK = Sizes(600, 4, (192, 128), 200, 2000, 1000, 50_000, 100)
TINY = Sizes(64, 2, (12, 8), 200, 96, 64, 600, 6)


def heatmap(sizes: Sizes, threads: int) -> Plan:
    """Unbiased linear CKA of all layer pairs."""
    return Plan(
        name="heatmap",
        work=f"unbiased linear CKA, {_grid(sizes)}, values",
        arrays=lambda: _stacks(sizes),
        sides=[
            _floor_of_grams(),
            _ours("ours", ["linear_cka"], _VALUES),
            Side(
                "pytorch-cka",
                "peer",
                _PEERS + "pytorch_cka",
                arrays=_LAYERS,
                package="pytorch-cka",
                like="ours",
            ),
            *(
                Side(
                    f"torch_cka, {name}",
                    "peer",
                    _PEERS + "torch_cka",
                    {"batch": batch},
                    arrays=_LAYERS,
                    package="torch-cka",
                    like="ours",
                    note=note,
                )
                for name, batch, note in (
                    ("all rows", sizes.samples, "one batch, which gives the same number"),
                    ("batches", 250, "batches of 250, whose mean is another number"),
                )
            ),
        ],
        aims=[
            Aim("ours / matrix products", ("ours",), ("matrix products",), bound=1.5),
            Aim("pytorch-cka / ours", ("pytorch-cka",), ("ours",), "at least", 2),
            *(
                Aim(f"{name} / ours", (name,), ("ours",), "at least", 10)
                for name in ("torch_cka, all rows", "torch_cka, batches")
            ),
        ],
    )


def inference(sizes: Sizes, threads: int) -> Plan:
    """The same with p, p over the maximum, and intervals."""
    few, more = 1, 3
    return Plan(
        name="inference",
        work=f"unbiased linear CKA, {_grid(sizes)}, with p, max-corrected p and interval",
        arrays=lambda: _stacks(sizes),
        sides=[
            _ours("ours, values", ["linear_cka"], _VALUES),
            _ours("ours, p alone", ["linear_cka"], {"folds": 0}),
            _ours("ours, intervals alone", ["linear_cka"], {"draws": 0}),
            _ours("ours", ["linear_cka"], {}),
            *(
                Side(
                    f"calibrated-similarity, {draws} of {sizes.draws}",
                    "peer",
                    _PEERS + "calibrated",
                    {"draws": draws},
                    arrays=_LAYERS,
                    package="calibrated-similarity",
                    scale=(sizes.draws + 1) / (draws + 1),
                    note=f"{draws} permutations measured and scaled to {sizes.draws}: its time is"
                    " that many heatmaps and one; debiased CKA in feature space as its measure",
                )
                for draws in (few, more)
            ),
        ],
        aims=[
            Aim("ours / heatmap alone", ("ours",), ("ours, values",), bound=4),
            Aim(
                f"calibrated-similarity at K = {sizes.draws} / ours",
                (f"calibrated-similarity, {more} of {sizes.draws}",),
                ("ours",),
                "at least",
                200,
            ),
            Aim(
                f"calibrated-similarity, scaled from {more} / scaled from {few} permutations"
                " (1 where its time is linear)",
                (f"calibrated-similarity, {more} of {sizes.draws}",),
                (f"calibrated-similarity, {few} of {sizes.draws}",),
            ),
        ],
    )


def defaults(sizes: Sizes, threads: int) -> Plan:
    """Every default measure of all layer pairs with its null, beside the best peer of each."""
    from mirror_analysis.similarity import DEFAULT

    again = sizes.draws
    peers = {name: BEST[name](sizes.layers) for name in DEFAULT if name in BEST}
    named = tuple(side.name for side in peers.values())
    without = [name for name in DEFAULT if name not in peers]
    left_out = f" (no peer for {', '.join(without)})" if without else ""
    return Plan(
        name="defaults",
        work=f"all default measures, {_grid(sizes)}, with null{left_out}",
        arrays=lambda: _with_first(_stacks(sizes)),
        sides=[
            _ours("ours, all", DEFAULT, {"folds": 0}),
            _ours("ours, all with intervals", DEFAULT, {}),
            *(_ours(f"ours, {name}, values", [name], _VALUES) for name in DEFAULT),
            *(_ours(f"ours, {name}, with null", [name], {"folds": 0}) for name in DEFAULT),
            *peers.values(),
        ],
        aims=[
            Aim(
                "best peer for each, summed, values without a null / ours with null",
                named,
                ("ours, all",),
                "at least",
                10,
            ),
            Aim(
                f"the same with a null by {again} recomputations, as calibrated-similarity does",
                named,
                ("ours, all",),
                "at least",
                10,
                times=again + 1,
            ),
        ],
    )


def neighbors(sizes: Sizes, threads: int) -> Plan:
    """Mutual kNN and CKNNA of one pair with many samples."""
    d, e = sizes.widths
    return Plan(
        name="neighbors",
        work=f"mutual kNN and CKNNA (k = 10), one pair, N = {sizes.many}, {d} x {e}",
        arrays=lambda: _pair(sizes.many, sizes),
        sides=[
            Side("matrix products", "floor", _FLOORS + "cosines", arrays=_PAIR),
            Side("ours", "ours", _OURS + "pair", _named("mutual_knn", "cknna"), arrays=_PAIR),
            Side(
                "mutual kNN as published",
                "published",
                _PUBLISHED + "mutual_knn",
                arrays=_PAIR,
                like="ours",
                note="algorithm of platonic-rep, Huh et al. 2024",
            ),
            Side(
                "CKNNA as published",
                "published",
                _PUBLISHED + "cknna",
                arrays=_PAIR,
                note="algorithm of platonic-rep, Huh et al. 2024; its 1e-6 moves the value",
            ),
        ],
        aims=[
            Aim("ours / matrix products", ("ours",), ("matrix products",), bound=2),
            Aim("memory of ours", ("ours",), bound=200, measured="memory"),
            Aim(
                "as published / ours",
                ("mutual kNN as published", "CKNNA as published"),
                ("ours",),
                "at least",
            ),
        ],
    )


def rsa(sizes: Sizes, threads: int) -> Plan:
    """Representational similarity analysis by ranks of one pair."""
    d, e = sizes.widths
    return Plan(
        name="rsa",
        work=f"RSA, correlation distance, Spearman, one pair, N = {sizes.pairs}, {d} x {e}",
        arrays=lambda: _pair(sizes.pairs, sizes),
        sides=[
            Side("ours", "ours", _OURS + "pair", _named("rsa"), arrays=_PAIR),
            Side(
                "rsatoolbox",
                "peer",
                _PEERS + "rsatoolbox",
                {"distance": "correlation", "comparison": "spearman"},
                arrays=_PAIR,
                package="rsatoolbox",
                like="ours",
            ),
        ],
        aims=[Aim("rsatoolbox / ours", ("rsatoolbox",), ("ours",), "at least", 5)],
    )


def streaming(sizes: Sizes, threads: int) -> Plan:
    """Linear CKA in one pass over more rows than are held."""
    d, e = sizes.widths
    long, short = sizes.stream, sizes.stream // 10
    chunk = min(4096, short)

    def side(name: str, kind: Kind, make: str, rows: int, **more: object) -> Side:
        settings = {"rows": rows, "chunk": chunk, **more}
        return Side(name, kind, make, settings, {"rows": 64 * 12, "chunk": 64}, _PAIR)

    return Plan(
        name="streaming",
        work=f"streaming linear CKA, N = {long}, {d} x {e}, chunks of {chunk} rows, read again and"
        " again from memory",
        arrays=lambda: _pair(4 * chunk, sizes),
        sides=[
            side("matrix products", "floor", _FLOORS + "moments", long),
            side("ours", "ours", _OURS + "streaming", long),
            side("ours, with interval", "ours", _OURS + "streaming", long, folds=10),
            side(f"ours, N = {short}", "ours", _OURS + "streaming", short),
        ],
        aims=[
            Aim("ours / matrix products", ("ours",), ("matrix products",), bound=1.3),
            Aim(
                f"memory of ours at N = {long} less that at N = {short}",
                ("ours",),
                (f"ours, N = {short}",),
                bound=20,
                measured="memory",
            ),
        ],
    )


def motion(sizes: Sizes, threads: int) -> Plan:
    """Dynamic time warping of all pairs of trajectories."""

    def side(name: str, kind: Kind, like: str, **settings: object) -> Side:
        package = name.split(",")[0] if kind == "peer" else ""
        make = _PEERS + package if package else _OURS + "motion"
        return Side(name, kind, make, settings, {}, ("paths",), package, like)

    return Plan(
        name="motion",
        work=f"dynamic time warping of all pairs of {sizes.paths} trajectories of 100 x 7",
        arrays=lambda: {"paths": data.trajectories(sizes.paths)},
        sides=[
            side("ours", "ours", "", squared=False, threads=threads),
            side("ours, squared cost", "ours", "", squared=True, threads=threads),
            side("dtaidistance", "peer", "ours", squared=False),
            side("dtaidistance, squared cost", "peer", "ours, squared cost", squared=True),
            side("tslearn", "peer", "ours, squared cost", threads=threads),
        ],
        aims=[
            Aim("dtaidistance / ours", ("dtaidistance",), ("ours",), "at least", 1),
            Aim(
                "dtaidistance / ours, squared cost",
                ("dtaidistance, squared cost",),
                ("ours, squared cost",),
                "at least",
                1,
            ),
            Aim(
                "tslearn / ours, squared cost", ("tslearn",), ("ours, squared cost",), "at least", 1
            ),
        ],
    )


ROWS: dict[str, Callable[[Sizes, int], Plan]] = {
    "defaults": defaults,
    "heatmap": heatmap,
    "inference": inference,
    "motion": motion,
    "neighbors": neighbors,
    "rsa": rsa,
    "streaming": streaming,
}


def _grid(sizes: Sizes) -> str:
    d, e = sizes.widths
    return f"{sizes.layers} x {sizes.layers} layers, N = {sizes.samples}, {d} x {e}"


def _stacks(sizes: Sizes) -> dict[str, data.Array]:
    made = data.stacks(sizes.samples, sizes.layers, *sizes.widths)
    return dict(zip(_LAYERS, made, strict=True))


def _with_first(stacks: dict[str, data.Array]) -> dict[str, data.Array]:
    return stacks | {name: stacks[f"{name}_layers"][0] for name in _PAIR}


def _pair(n: int, sizes: Sizes) -> dict[str, data.Array]:
    return dict(zip(_PAIR, data.pair(n, *sizes.widths), strict=True))


def _floor_of_grams() -> Side:
    return Side("matrix products", "floor", _FLOORS + "grams", arrays=_LAYERS)


def _named(*measures: str) -> dict[str, object]:
    return {"measures": list(measures)}


def _ours(name: str, measures: object, settings: dict[str, int]) -> Side:
    chosen = {"measures": list(measures), "settings": settings}  # type: ignore[call-overload]
    return Side(name, "ours", _OURS + "grid", chosen, arrays=_LAYERS)
