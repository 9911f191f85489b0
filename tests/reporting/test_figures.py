import msgspec
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_result import SEEDS, SIDES, Maker, small_result

from mirror_analysis.reporting import style
from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures import Absent, Drawing
from mirror_analysis.reporting.figures import controls as controls_figure
from mirror_analysis.reporting.figures import layers as layers_figure
from mirror_analysis.reporting.figures import maps as maps_figure
from mirror_analysis.reporting.figures import outcome as outcome_figure
from mirror_analysis.reporting.figures import recall as recall_figure
from mirror_analysis.reporting.figures import seeds as seeds_figure
from mirror_analysis.results import Result, Score


def drawn(made: Drawing | Absent) -> Drawing:
    assert isinstance(made, Drawing)
    return made


def texts_of(axes: Axes) -> list[str]:
    return [t.get_text() for t in axes.texts]


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
    assert texts(made) == [".12", "−.02*", ".30**", "1.00***"]
    assert "largest 1.00 at penultimate and vision" in made.alt


def test_information_has_one_digit_so_that_it_fits_its_cell() -> None:
    base = small_result()
    cells = [
        msgspec.structs.replace(s, measure="infonce", value=v, p_max=None)
        for s, v in zip(base.scores[:4], (-1.05, -0.26, 2.04, 0.0), strict=True)
    ]
    made = drawn(layers_figure.draw(Evidence(small_result(scores=cells))))
    assert texts(made) == ["−1.1", "−.3", "2.0", "0.0"]


def test_layers_fit_a_page_and_no_panel_is_empty(result: Result) -> None:
    scores = [
        s for s in result.scores if not (s.within and s.measure in ("recall_at_1", "infonce"))
    ]
    made = drawn(layers_figure.draw(Evidence(msgspec.structs.replace(result, scores=scores))))
    assert made.figure.get_figheight() <= 9
    assert made.figure.get_figwidth() <= style.DOUBLE
    assert all(axes.collections for axes in made.figure.axes)
    titles = [axes.get_title(loc="left") for axes in made.figure.axes]
    assert titles[:2] == ["Linear CKA, over all episodes", "Linear CKA, within task"]
    assert titles[-2:] == ["Recall@1, over all episodes", "InfoNCE (nats), over all episodes"]


def test_measures_that_a_page_has_no_room_for_are_named() -> None:
    make, names = Maker(), [f"layer{i}" for i in range(10)]
    scores = [
        make.score(m, 0.3, SIDES["trained-trained"], x_layer=x, y_layer=y, within=w, p_max=None)
        for m in ("linear_cka", "mutual_knn", "cknna", "svcca", "rsa")
        for w in ("", "task")
        for x in names
        for y in names[:2]
    ]
    made = drawn(layers_figure.draw(Evidence(small_result(scores=scores))))
    assert made.figure.get_figheight() <= 9
    assert len(made.figure.axes) == 8
    assert made.caption.endswith("For want of room without RSA.")


def test_bands_of_recall_are_of_the_pair_and_its_best_control(result: Result) -> None:
    made = drawn(recall_figure.draw(Evidence(result)))
    assert len(made.figure.axes) == 4
    for axes in made.figure.axes:
        assert len(axes.collections) == 2
        assert texts_of(axes) == ["best matched control: pixels – pixels"]
        blue = [line for line in axes.lines if line.get_color() == style.BLUE]
        assert len(blue) == 1


def test_chance_is_the_mean_of_the_null_whatever_the_gallery_says(result: Result) -> None:
    made = drawn(recall_figure.draw(Evidence(result)))
    chance = [line for line in made.figure.axes[0].lines if line.get_color() == style.BLACK]
    assert [set(line.get_ydata()) for line in chance] == [{0.0156}]


def test_controls_stand_under_headings_and_shares_run_from_nought_to_one(result: Result) -> None:
    made = drawn(controls_figure.draw(Evidence(result)))
    labels = [t.get_text() for t in made.figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["trained – trained", "Matched controls", "trained – untrained"]
    assert labels[labels.index("References") + 1] == "shuffled"
    low, high = made.figure.axes[0].get_xlim()
    assert low < 0
    assert 1 < high < 1.15


def test_scores_that_are_all_undefined_are_said_to_be_so(result: Result) -> None:
    scores = [
        msgspec.structs.replace(s, value=None, interval=None, undefined="constant")
        for s in result.scores
        if s.measure in ("svcca", "infonce") and s.seed is None
    ]
    made = drawn(controls_figure.draw(Evidence(msgspec.structs.replace(result, scores=scores))))
    assert {t for axes in made.figure.axes for t in texts_of(axes)} == {"n.d."}
    assert "trained pair not defined (constant)" in made.alt


def test_outcomes_stand_side_by_side_above_their_differences(result: Result) -> None:
    scores = [s for s in result.scores if s.measure == "recall_at_1"]
    made = drawn(outcome_figure.draw(Evidence(msgspec.structs.replace(result, scores=scores))))
    titles = [axes.get_title(loc="left") for axes in made.figure.axes]
    assert titles == ["Recall@1,\nover all episodes", "Recall@1,\nwithin task", "", ""]
    assert [t.get_text() for t in made.figure.axes[2].get_xticklabels()][:2] == [
        "trained", "untrained",
    ]  # fmt: skip


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
