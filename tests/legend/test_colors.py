"""Default colours: what a name means, never one colour twice, safe for colour-blind readers."""

from __future__ import annotations

import colorsys
from itertools import combinations

import pytest
from hypothesis import given, strategies as st

from geodinoseg.legend import Legend
from geodinoseg.legend.colors import _MEANINGS, PALETTE, confusion, default_colors, meaning_color

WORDS = [word for words in _MEANINGS.values() for word in words.split()]


def hue_of(name):
    color = default_colors([name])[0]
    hue, lightness, saturation = colorsys.rgb_to_hls(
        *(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    )
    return 360 * hue, lightness, saturation


@pytest.mark.parametrize(
    ("names", "hues"),
    [
        (["water", "River", "LAKES", "sea_water"], (200, 240)),
        (["grass", "Lawn", "meadows", "tall grass"], (80, 140)),
        (["forest", "trees", "Tree cover", "WoodLand"], (90, 160)),
        (["building", "roofs", "Built-up", "urban area"], (345, 375)),
        (["bare", "bare soil", "BareGround", "Dirt"], (15, 40)),
        (["crop", "Cropland", "fields"], (40, 60)),
    ],
)
def test_a_name_has_the_colour_that_people_expect(names, hues):
    for name in names:
        hue = hue_of(name)[0]
        assert hues[0] <= hue <= hues[1] or hues[0] <= hue + 360 <= hues[1], name


def test_forest_is_darker_than_grass_roads_are_grey_and_snow_is_white():
    assert hue_of("forest")[1] < 0.6 * hue_of("grass")[1]
    assert hue_of("road")[2] == 0
    assert hue_of("snow")[1] == 1


@pytest.mark.parametrize(
    "name", ["watering", "no water", "non-forest", "other grass", "class 7", "", "水田", "roadster"]
)
def test_other_words_and_negations_mean_nothing(name):
    assert meaning_color(name) is None


def test_the_last_word_says_what_a_thing_is():
    assert meaning_color("forest road") == meaning_color("road")
    assert meaning_color("grass roof") == meaning_color("roof")


def test_meanings_differ_from_each_other_for_every_reader():
    everyone = [*_MEANINGS, "#d9d9d9"]  # that of the background
    assert min(confusion(*pair) for pair in combinations(everyone, 2)) > 9.9


def test_the_first_of_the_palette_differ_for_every_reader():
    first = default_colors([f"c{n}" for n in range(12)])
    assert set(first) <= set(PALETTE)
    assert min(confusion(*pair) for pair in combinations(first, 2)) >= 9


@given(
    names=st.lists(st.sampled_from([*WORDS, "a", "b", "c", "Water", "no water"]), max_size=60),
    taken=st.lists(st.sampled_from([*PALETTE, *_MEANINGS]), max_size=6),
)
def test_no_colour_is_given_twice_and_the_same_names_get_the_same_colours(names, taken):
    colors = default_colors(names, taken=[color.upper() for color in taken])
    assert len({*colors, *taken}) == len(colors) + len(set(taken))
    assert default_colors(names, taken=taken) == colors


@pytest.mark.parametrize("name", ["water {}", "c{}"])
def test_any_number_of_classes_has_distinct_colours(name):
    assert len(set(default_colors([name.format(n) for n in range(65_535)]))) == 65_535


def test_colours_that_are_given_stay_and_the_background_is_grey():
    legend = Legend.of_names({0: "background", 1: "water", 2: "grass", 3: "tin"}, {1: "#d9d9d9"})
    colors = [entry.color for entry in legend]
    assert colors[1] == "#d9d9d9"
    assert len(set(colors)) == 4
    assert Legend.of_names({0: "background", 1: "water"}).classes[0].color == "#d9d9d9"
    saved = Legend.of_names({1: "water"}, {1: "#ff0000"}).to_json()
    assert Legend.from_json(saved).classes[0].color == "#ff0000"
