import msgspec
import pytest

from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.errors import DefinitionError


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; needed a number above 0"),
        ({"temperature": -1.0}, "temperature is -1.0; needed a number above 0"),
        ({"epochs": 0}, "epochs is 0; needed 1 or more"),
        ({"batch": 1}, "batch is 1; needed 2 or more"),
        ({"width": 0}, "width is 0; needed 1 or more"),
        ({"align_weight": -0.5}, "align_weight is -0.5; needed 0 or more"),
        ({"execution_weight": float("nan")}, "execution_weight is nan; needed 0 or more"),
        ({"seed": -1}, "seed is -1; needed 0 or more"),
        ({"align_warmup": 1.5}, "align_warmup is 1.5; it is a share of the updates, so needed"),
        ({"align_until": 2.0}, "align_until is 2.0; it is a share of the updates, so needed"),
    ],
)
def test_settings_out_of_range_are_refused(fields, words):
    with pytest.raises(DefinitionError, match=words):
        JointConfig(**fields)


def test_unknown_settings_are_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `lambda`"):
        msgspec.json.decode(b'{"lambda": 1}', type=JointConfig)
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'twin'"):
        msgspec.json.decode(b'{"target": "twin"}', type=JointConfig)


def test_the_align_weight_rises_stays_and_ends():
    config = JointConfig(align_weight=0.5, align_warmup=0.2, align_until=0.8)
    weights = [config.align_weight_at(done) for done in (0.0, 0.1, 0.2, 0.5, 0.8, 0.81, 1.0)]
    assert weights == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5, 0.0, 0.0])
    assert JointConfig(align_weight=0.5).align_weight_at(0.0) == 0.5
    assert JointConfig(align_weight=0.0).align_weight_at(0.5) == 0.0
