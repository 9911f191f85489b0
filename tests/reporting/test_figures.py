import msgspec
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_result import SEEDS, SIDES, Maker, small_result

from mirror_analysis.reporting import style
from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures import Absent, Drawing
from mirror_analysis.reporting.figures import layers as layers_figure
from mirror_analysis.reporting.figures import maps as maps_figure
from mirror_analysis.reporting.figures import seeds as seeds_figure
from mirror_analysis.results import Result, Score


def drawn(made: Drawing | Absent) -> Drawing:
    assert isinstance(made, Drawing)
    return made


def texts(made: Drawing) -> list[str]:
    return [t.get_text() for axes in made.figure.axes for t in axes.texts]


@pytest.fixture(autouse=True)
def in_style() -> object:
    with style.applied():
        yield


def test_style_leaves_no_trace() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with style.applied():
        assert matplotlib.rcParams["svg.fonttype"] == "none"
        matplotlib.rcParams["font.size"] = 30
    assert dict(matplotlib.rcParams) == before


def test_cells_carry_values_and_the_marks_of_the_corrected_p() -> None:
    base = small_result()
    values, ps = (0.123, -0.02, 0.3, 1.0), (0.5, 0.04, 0.009, 0.0002)
    cells = [
        msgspec.structs.replace(s, value=v, p_value=0.0001, p_max=p)
        for s, v, p in zip(base.scores, values, ps, strict=False)
    ]
    made = drawn(layers_figure.draw(Evidence(msgspec.structs.replace(base, scores=cells))))
    assert texts(made) == [".12", "−.02\n*", ".30\n**", "1.00\n***"]
    assert "largest 1.00 at penultimate and vision" in made.alt


def test_an_undefined_cell_is_a_dash() -> None:
    base = small_result()
    cells = [msgspec.structs.replace(base.scores[0], value=None, p_max=None), *base.scores[1:]]
    made = drawn(layers_figure.draw(Evidence(msgspec.structs.replace(base, scores=cells))))
    assert texts(made)[0] == "–"


def test_without_a_corrected_p_of_the_mean_the_largest_over_seeds_counts() -> None:
    base = small_result()
    mean = [msgspec.structs.replace(s, p_max=None) for s in base.scores[:4]]
    single = [
        msgspec.structs.replace(s, seed=seed, p_max=p)
        for s in mean
        for seed, p in zip(SEEDS, (0.001, 0.03, 0.002), strict=True)
    ]
    evidence = Evidence(msgspec.structs.replace(base, scores=[*mean, *single]))
    assert layers_figure.corrected(evidence, mean[0]) == 0.03
    lacking = [msgspec.structs.replace(single[0], p_max=None), *single[1:]]
    evidence = Evidence(msgspec.structs.replace(base, scores=[*mean, *lacking]))
    assert layers_figure.corrected(evidence, mean[0]) is None


def test_many_layers_are_drawn_without_values_but_with_a_scale() -> None:
    make = Maker()
    names = [f"blocks.{i}.attention.output.dense" for i in range(24)]
    scores: list[Score] = [
        make.score("linear_cka", 0.3, SIDES["trained-trained"], x_layer=x, y_layer=y, p_max=0.5)
        for x in names
        for y in names
    ]
    made = drawn(layers_figure.draw(Evidence(small_result(scores=scores))))
    assert set(texts(made)) == {""}
    assert len(made.figure.axes) == 2
    labels = [t.get_text() for t in made.figure.axes[0].get_yticklabels()]
    assert max(map(len, labels)) <= 16
    assert made.figure.get_figwidth() <= style.DOUBLE


def test_seeds_show_each_seed_with_its_control(result: Result) -> None:
    made = drawn(seeds_figure.draw(Evidence(result)))
    ticks = [t.get_text() for t in made.figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "1", "2"]
    assert made.alt.count("seed 2 trained pair") == 12


def test_map_labels_do_not_cover_one_another(result: Result) -> None:
    made = drawn(maps_figure.draw(Evidence(result)))
    renderer = FigureCanvasAgg(made.figure).get_renderer()
    made.figure.draw_without_rendering()
    for axes in made.figure.axes:
        boxes = [t.get_window_extent(renderer) for t in axes.texts]
        assert len(boxes) == 36
        for i, box in enumerate(boxes):
            # Corners of the boxes around digits are empty; their middles must stay free.
            inner = box.expanded(0.5, 0.5)
            assert not any(inner.overlaps(b.expanded(0.5, 0.5)) for b in boxes[i + 1 :])


def test_every_task_has_a_look_of_its_own() -> None:
    looks = [maps_figure._look(i) for i in range(42)]
    assert len(set(looks)) == 42
