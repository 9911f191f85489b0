import pytest

from mirror_analysis.errors import FormatError, MissingFileError, ShapeError
from mirror_analysis.rollout import Outcomes, load_outcomes, save_outcomes

OUTCOMES = Outcomes(
    "policy", ("reach", "push"), (5, 6, 7), ((True, False, True), (False, False, True)),
    ((9, 150, 12), (150, 150, 40)), 150, 0, "plain",
)  # fmt: skip


def test_the_rate_is_over_all_episodes():
    assert OUTCOMES.rate == 0.5


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "outcomes.json"
    save_outcomes(OUTCOMES, path)
    assert load_outcomes(path) == OUTCOMES
    assert [file.name for file in tmp_path.iterdir()] == ["outcomes.json"]


def test_what_is_no_file_of_outcomes_is_refused(tmp_path):
    path = tmp_path / "outcomes.json"
    with pytest.raises(MissingFileError, match=r"no outcomes at .*; save_outcomes writes them"):
        load_outcomes(path)
    save_outcomes(OUTCOMES, path)
    whole = path.read_text()
    for text in ("{}", "\xff", whole[:-2], whole.replace("[5,6,7]", "[5,6]")):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(FormatError, match=r"outcomes\.json holds no outcomes of roll-outs: "):
            load_outcomes(path)


def test_every_episode_has_one_outcome():
    words = r"of p has rows of \[2\] episodes; needed 1 rows of 1, one per task"
    with pytest.raises(ShapeError, match="success " + words):
        Outcomes("p", ("reach",), (1,), ((True, True),), ((1,),), 150, 0, "plain")
    with pytest.raises(ShapeError, match="steps " + words):
        Outcomes("p", ("reach",), (1,), ((True,),), ((1, 2),), 150, 0, "plain")
    with pytest.raises(ShapeError, match=r"has rows of \[1\] episodes; needed 2 rows of 1"):
        Outcomes("p", ("reach", "push"), (1,), ((True,),), ((1,),), 150, 0, "plain")
