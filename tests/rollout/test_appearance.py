import pytest

from mirror_analysis.episodes import Nuisance
from mirror_analysis.episodes.variants import VARIANTS, Variant
from mirror_analysis.errors import UnknownNameError
from mirror_analysis.rollout.appearance import Look, look_of


def test_nothing_said_and_a_variant_that_changes_nothing_are_plain():
    assert look_of(None) == look_of(Variant()) == Look("plain", None, None)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_goes_by_its_name_however_it_is_given(name):
    assert look_of(name) == look_of(VARIANTS[name]) == Look(name, None, VARIANTS[name])


def test_a_variant_without_a_name_goes_by_what_it_is_made_of():
    variant = Variant(zoom=1.25, arm=1.5)
    assert look_of(variant) == Look("zoom 1.25, arm 1.5", None, variant)


def test_nuisance_is_nuisance_whatever_its_settings():
    assert look_of(Nuisance(seed=2)) == Look("nuisance", Nuisance(seed=2), None)


@pytest.mark.parametrize("name", ["camera-sid", "", "plain", "nuisance"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownNameError, match=f"unknown variant '{name}'.*camera-side"):
        look_of(name)
