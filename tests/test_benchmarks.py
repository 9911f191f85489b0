"""The machinery behind the speed table, at tiny size and without the packages compared with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import similarity
from benchmarks.speed import data, floors, growth, process, published, record, rows, running, tables
from benchmarks.speed.process import Side, Worker
from benchmarks.speed.record import Benchmarks, Check, Growth, Point, Row, Timing, Turn
from benchmarks.speed.running import Aim, judged
from benchmarks.speed.worker import made, timed
from mirror_analysis.similarity import linear_cka, mean_squared_cca, mutual_knn, svcca
from mirror_analysis.similarity.neighbors.aligned import cknna


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setattr(process, "PEERS", Path("nowhere"))


def timing(name, *walls, kind="ours", scale=1.0, peak=None, skipped=""):
    turns = [Turn(w, 2 * w, 0.5) for w in walls]
    return Timing(name, kind, "1.0", "", scale, turns, peak, 0.25, None, skipped)


def test_a_row_runs_its_sides_and_says_which_are_missing(no_peers):
    plan = rows.heatmap(rows.TINY, 1)
    said = []
    row = running.run(plan, threads=1, rounds=2, limit=100, say=said.append)
    by_name = {t.name: t for t in row.timings}
    assert list(by_name)[:3] == ["matrix products", "ours", "pytorch-cka"]
    assert [len(t.turns) for t in row.timings] == [2, 2, 0, 0, 0]
    assert by_name["ours"].peak_mb >= 0 and by_name["ours"].wall > 0 and len(said) == 4
    x, y = data.stacks(64, 2, 12, 8)
    expected = np.mean([linear_cka(a, b) for a in x for b in y])
    assert by_name["ours"].value == pytest.approx(expected, abs=1e-6)
    assert "make peers" in by_name["pytorch-cka"].skipped
    to_floor, to_peer = row.checks[:2]
    assert to_floor.measured == by_name["ours"].wall / by_name["matrix products"].wall
    assert to_peer.measured is None and "not installed" in to_peer.missing


def test_every_row_is_a_plan_whose_aims_name_its_sides():
    for name, make in rows.ROWS.items():
        plan = make(rows.TINY, 1)
        arrays = plan.arrays()
        names = [s.name for s in plan.sides]
        assert plan.name == name and len(set(names)) == len(names)
        for side in plan.sides:
            assert set(side.arrays) <= set(arrays)
            assert side.like == "" or side.like in names
        for aim in plan.aims:
            assert {*aim.of, *aim.to} <= set(names), (name, aim)


def test_a_side_that_fails_or_hangs_is_skipped_with_the_reason(tmp_path):
    paths = data.written(tmp_path, dict(zip("xy", data.pair(16, 3, 3), strict=True)))
    worker = Worker("ours", threads=1, limit=100)
    worker.load(Side("one", "ours", "benchmarks.speed.nowhere:work", arrays=("x", "y")), paths)
    assert worker.skipped == "not there: No module named 'benchmarks.speed.nowhere'"
    assert worker.run(budget=0, most=1) == {}
    worker.close()
    worker = Worker("ours", threads=1, limit=0)
    worker.load(Side("one", "ours", "benchmarks.speed.floors:cosines", arrays=("x", "y")), paths)
    assert worker.skipped == "did not finish in 0 s"
    worker.close()


def test_work_is_made_of_files_and_warmed_on_a_part(tmp_path):
    paths = data.written(tmp_path, {name: np.ones((100, 2), np.float32) for name in "xy"})
    work = made(
        {
            "make": "benchmarks.speed.floors:moments",
            "arrays": {k: str(v) for k, v in paths.items()},
            "settings": {"rows": 250, "chunk": 30},
            "warm": {"rows": 10},
        }
    )
    found = timed(work, budget=100.0, most=3)
    assert found["value"] == 750 and len(found["wall"]) == len(found["cpu"]) == 3
    assert len(timed(work, budget=0, most=3)["wall"]) == 1


@pytest.mark.parametrize(("held", "rows_", "chunk"), [(90, 250, 30), (100, 250, 30), (8, 5, 30)])
def test_chunks_read_as_many_rows_as_asked_for(held, rows_, chunk):
    parts = floors.chunks(held, rows_, chunk)
    sizes = [p.stop - p.start for p in parts]
    assert sum(sizes) == rows_ and max(sizes) <= min(chunk, held)
    assert all(0 <= p.start and p.stop <= held for p in parts)


def test_published_algorithms_give_our_numbers():
    x, y = data.pair(80, 12, 9, latent=4)
    assert published.mutual_knn(x=x, y=y)() == pytest.approx(mutual_knn(x, y), abs=1e-6)
    assert published.cknna(x=x, y=y)() == pytest.approx(cknna(x, y), rel=2e-3)
    assert published.svcca(x=x, y=y)() == pytest.approx(svcca(x, y), abs=1e-5)
    assert published.cca(x=x, y=y)() == pytest.approx(svcca(x, y, variance=1.0), abs=1e-5)
    assert published.mean_squared_cca(x=x, y=y)() == pytest.approx(mean_squared_cca(x, y), abs=1e-5)
    a, b = (torch.from_numpy(v).double() for v in (x, y))
    assert float(published.debiased_cka(a, b)) == pytest.approx(linear_cka(x, y), abs=1e-9)
    assert published.procrustes_similarity(x=x, y=3 * x[:, ::-1].copy() + 5)() == pytest.approx(
        1, abs=1e-5
    )


def test_aims_are_judged_by_sums_of_least_times_scaled():
    ours, peer = timing("ours", 3.0, 2.0), timing("peer", 1.0, kind="peer", scale=10.0)
    found = judged(Aim("both / ours", ("peer", "ours"), ("ours",), "at least", 6), [ours, peer])
    assert found.measured == found.cpu == 6.0 and found.met
    assert not judged(Aim("", ("peer",), ("ours",), "at most", 4.9), [ours, peer]).met
    assert judged(Aim("", ("peer",), ("ours",), times=3), [ours, peer]).measured == 15
    assert judged(Aim("", ("peer",), ("ours",)), [ours, peer]).met is None
    nowhere = judged(Aim("", ("nobody",), ("ours",)), [ours, peer])
    assert nowhere.measured is None and nowhere.missing == "nobody: no such side"


def test_memory_is_judged_in_megabytes_and_what_is_missing_is_said():
    big, small = timing("big", 1.0, peak=150.0), timing("small", 1.0, peak=140.0)
    aim = Aim("grows", ("big",), ("small",), "at most", 20, "memory")
    found = judged(aim, [big, small])
    assert (found.measured, found.unit, found.met) == (10.0, "MB", True)
    found = judged(aim, [big, timing("small", skipped="out of memory")])
    assert found.met is None and found.missing == "small: out of memory"
    assert "cannot be read" in judged(aim, [big, timing("small", 1.0)]).missing


def example():
    on = record.Machine("Fast(R) CPU @ 3 GHz", 2, 8.0, "Linux x86_64", 2, "3.11", {}, "mkl")
    checks = [
        Check("ours / products", "x", "at most", 1.5, 1.2, 1.3, ""),
        Check("peer / ours", "x", "at least", 10.0, 4.0, 5.0, ""),
        Check("memory", "MB", "at most", 20.0, None, None, "ours: not there"),
    ]
    sides = [
        timing("ours", 2.0, 1.0, peak=3.0),
        timing("peer", 4.0, kind="peer", scale=144.0),
        timing("other", kind="peer", skipped="not installed"),
    ]
    row = Row("heatmap", "linear CKA", False, "2026-01-02", "abc", True, 9.0, sides, checks)
    points = [
        Point(along, n, "linear_cka", n**2 / 1e4, n**2 / 1e4, None)
        for along in ("samples", "layers", "features")
        for n in (8, 16, 32, 64)
    ]
    fixed = {"samples": 8, "layers": 8, "features": 8}
    return Benchmarks(on, [row], Growth("2026-01-02", "abc", False, False, fixed, points))


def test_results_are_read_back_as_written_and_rows_replaced(tmp_path):
    found = example()
    assert record.slug(found.machine) == "fast-2-threads"
    similarity.write(found, tmp_path / "fast")
    assert record.read(tmp_path / "fast.json") == found
    assert {p.name for p in tmp_path.iterdir()} == {
        "fast.json",
        "fast.md",
        "fast-aims.png",
        "fast-growth.png",
        "fast-times.png",
    }
    new = Row("rsa", "ranks", True, "2026-01-03", "def", False, 1.0, [], [])
    both = record.merged(found, [new], None, found.machine)
    assert [r.name for r in both.rows] == ["heatmap", "rsa"] and both.growth == found.growth
    assert record.merged(both, [new], None, found.machine) == both


def test_the_page_says_what_was_aimed_at_and_what_fell_short():
    page = tables.document(example(), ["fast-aims.png"])
    assert "| heatmap | ours / products | at most 1.5 x | 1.2 x | 1.3 x | met |" in page
    assert "| at least 10 x | 4 x | 5 x | **fell short** |" in page
    assert "| memory | at most 20 MB | ours: not there |" in page
    assert "| peer 1.0 | 576 | 1.15e+03 |" in page and "measured 4 s; one turn" in page
    assert "commit abc with changes" in page and "| linear_cka | 2.0 | 2.0 | 2.0 |" in page


def test_clock_and_processor_that_disagree_are_said():
    found = example()
    row = found.rows[0]
    apart = Check("busy", "x", "at most", 1.5, 2.0, 1.2, "")
    small = Row(*(getattr(row, f) if f != "quick" else True for f in Row.__struct_fields__))
    page = tables.document(Benchmarks(found.machine, [row, small]), [])
    assert "small sizes, not judged" in page and "## Growth" not in page
    assert tables.verdict(apart) == "fell short by the clock only"


def test_curves_hold_a_point_for_every_size(no_peers):
    chosen = [growth.sides()[0], growth.sides()[1]]
    found = growth.grown(growth.TINY, threads=1, limit=100, say=lambda _: None, chosen=chosen)
    assert [(p.along, p.size, p.name) for p in found.points] == [
        ("samples", 48, "matrix products"),
        ("samples", 64, "matrix products"),
    ]
    assert found.fixed == {"samples": 48, "layers": 1, "features": 8}
