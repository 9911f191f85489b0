import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.reporting import draw_comparison, style
from mirror_analysis.reporting.figures.cells import PRINTED, span
from mirror_analysis.results import Comparison, Score


def comparison(measures=("linear_cka", "mutual_knn"), rows=3, columns=2, **fields):
    scores = []
    for m in measures:
        for i in range(rows):
            for j in range(columns):
                settings = {
                    "measure": m, "value": 0.1 + 0.1 * i + 0.05 * j, "x": "watcher", "y": "actor",
                    "n": 40, "x_layer": f"conv{i}", "y_layer": f"fc{j}", "p_value": 0.001,
                    "p_max": 0.5,
                }  # fmt: skip
                scores.append(Score(**(settings | fields)))
    return Comparison(tuple(scores))


def texts(axes):
    return [t.get_text() for t in axes.texts]


def frames(axes):
    return [p for p in axes.patches if isinstance(p, Rectangle)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_one_panel_per_measure(count):
    names = ["linear_cka", "mutual_knn", "cknna", "svcca", "rv"][:count]
    figure = draw_comparison(comparison(names))
    assert len(figure.axes) == count
    assert len({axes.get_title() or axes.get_title("left") for axes in figure.axes}) == count
    assert all(len(axes.texts) >= 6 for axes in figure.axes)


def test_measures_are_drawn_in_the_order_they_are_named_in():
    figure = draw_comparison(comparison(), measures=["mutual_knn"])
    assert len(figure.axes) == 1
    both = [draw_comparison(comparison(), measures=m) for m in (["linear_cka", "mutual_knn"],
            ["mutual_knn", "linear_cka"])]  # fmt: skip
    titles = [[a.get_title() or a.get_title("left") for a in f.axes] for f in both]
    assert titles[0] == titles[1][::-1]


def test_the_best_cell_is_framed_and_labels_stand_in_layer_order():
    (axes,) = draw_comparison(comparison(["linear_cka"])).axes
    assert {p.get_xy() for p in frames(axes)} == {(1, 2)}
    assert to_hex(frames(axes)[-1].get_edgecolor()) == to_hex(style.VERMILION)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["conv0", "conv1", "conv2"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["fc0", "fc1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer of actor", "layer of watcher")
    assert axes.yaxis_inverted()


def test_marks_are_of_the_corrected_p():
    for p, mark in ((0.5, ""), (0.04, "*"), (0.009, "**"), (0.0002, "***"), (None, "")):
        (axes,) = draw_comparison(comparison(["linear_cka"], 1, 1, p_max=p)).axes
        assert texts(axes) == [f".10{mark}"]


def test_many_cells_have_dots_and_a_scale():
    few = draw_comparison(comparison(["linear_cka"], PRINTED, 1))
    many = draw_comparison(comparison(["linear_cka"], PRINTED + 1, 1, p_max=0.001))
    assert len(few.axes) == 1 and len(many.axes) == 2  # the scale
    assert set(texts(many.axes[0])) == {"·"}
    plain = draw_comparison(comparison(["linear_cka"], PRINTED + 1, 1))
    assert set(texts(plain.axes[0])) == {""}


def test_what_is_not_defined_is_drawn_without_a_frame():
    (axes,) = draw_comparison(
        comparison(["linear_cka"], 2, 2, value=None, undefined="constant")
    ).axes
    assert len(texts(axes)) == 4 and not frames(axes)


def test_colours_begin_at_0_or_below():
    cells = comparison(["linear_cka"]).scores
    assert (span(cells).vmin, span(cells).vmax) == (0, pytest.approx(0.35))
    below = comparison(["linear_cka"], value=-0.2).scores
    assert span(below).vmin == -0.2 and span(below).vmax > 0
    assert span(comparison(["linear_cka"], value=None).scores).vmax == 1


def test_style_leaves_no_trace_and_the_figure_can_be_saved(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = draw_comparison(comparison())
    figure.savefig(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 1000
    assert dict(matplotlib.rcParams) == before


def test_says_what_is_wrong():
    with pytest.raises(
        UnknownNameError, match="unknown measure 'linear_ckaa'; did you mean 'linear"
    ):
        draw_comparison(comparison(), measures=["linear_ckaa"])


def test_an_empty_comparison_is_refused():
    with pytest.raises(DegenerateError, match="the comparison has no scores; compare with at"):
        draw_comparison(Comparison(()))
