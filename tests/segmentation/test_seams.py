"""What a map says of the tiles that it was computed in, against counts over the whole array."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from rasters import ConstantModel, FixedModel, IdentityModel, SmoothModel, write_raster

from geodinoseg.evaluation.evaluate import evaluate_map
from geodinoseg.evaluation.report.write import write_report
from geodinoseg.rasters.class_raster import open_class_raster
from geodinoseg.rasters.seams import SEAMS_TAG, JoinRates, Seams
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.seams import JoinCounts
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings
from geodinoseg.segmentation.tile_grid import TileGrid
from geodinoseg.windows import windows_over

TILE, OVERLAP = 96, 32
STRIDE = TILE - OVERLAP
SETTINGS = SegmentationSettings(tile_px=TILE, overlap_px=OVERLAP)


class StubbornModel(FixedModel):
    """Calls every bright pixel of a tile what the middle of the tile is: 1, or 2 from 200 on."""

    def __init__(self):
        super().__init__(3, TILE)
        self.fingerprint = "stubborn"

    def answer(self, pixels, valid):
        middle = pixels[:, 0, TILE // 2, TILE // 2]
        of_tile = torch.where(middle >= 200, 2, 1)[:, None, None]
        classes = torch.where(pixels[:, 0] >= 100, of_tile, 0)
        return torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


def checkered(tiles: int, *, dark_rows: int = 0) -> np.ndarray:
    """A scene on which the middles of neighbouring tiles alternate; its first rows are dark."""
    side = (tiles - 1) * STRIDE + TILE
    cells = (np.arange(side) - TILE // 2 + STRIDE // 2) // STRIDE
    pixels = np.where((cells[:, None] + cells) % 2, 220, 120).astype(np.uint8)
    pixels[:dark_rows] = 50
    return pixels[None]


def shared(grid: TileGrid) -> np.ndarray:
    """Number of tiles over each pixel, (height, width)."""
    tiles = np.zeros((grid.height, grid.width), int)
    for row, col in itertools.product(grid.row_offsets, grid.col_offsets):
        tiles[row : row + grid.tile_px, col : col + grid.tile_px] += 1
    return tiles


def test_tiles_that_disagree_by_construction_give_a_known_share_and_a_tiny_p(tmp_path, caplog):
    scene = write_raster(tmp_path / "s.tif", checkered(5, dark_rows=20))
    raster = segment_scene(scene, StubbornModel(), tmp_path / "map.tif", settings=SETTINGS)
    side = raster.width
    grid = TileGrid(height=side, width=side, tile_px=TILE, overlap_px=OVERLAP)
    overlap = shared(grid) > 1
    seams = raster.seams
    assert seams.overlap_px == overlap.sum()
    # All bright ones: two of the tiles over a pixel are neighbours.
    assert seams.disagreeing_px == overlap[20:].sum()
    # The class changes there alone, and at the edge of the dark. Joins three lines wide still lie
    # on these lines if they are shifted by one.
    for rates in (seams.changes, seams.straight):
        assert_allclose(rates.p_value, (3 / STRIDE) ** 2)
        assert rates.rate_at_joins > 20 * rates.rate_elsewhere
    assert "the map may show seams" in caplog.text
    assert f"Try larger tiles (--tile {2 * TILE})" in caplog.text


@pytest.mark.parametrize("model", [IdentityModel(3), ConstantModel((0.3, 0.7))])
def test_a_model_that_sees_single_pixels_has_no_seam(tmp_path, caplog, model):
    pixels = np.random.default_rng(1).integers(0, 3, (1, 301, 290)).astype(np.uint8)
    scene = write_raster(tmp_path / "s.tif", np.kron(pixels[:, :60, :60], np.ones((5, 5))))
    seams = segment_scene(scene, model, tmp_path / "map.tif", settings=SETTINGS).seams
    assert seams.overlap_px > 0
    assert seams.disagreement == 0
    assert seams.changes.p_value > 0.05
    assert seams.straight.p_value > 0.05
    assert "seams" not in caplog.text


def test_a_scene_in_one_tile_has_no_join(tmp_path):
    scene = write_raster(tmp_path / "s.tif", checkered(1))
    seams = segment_scene(scene, StubbornModel(), tmp_path / "map.tif", settings=SETTINGS).seams
    assert (seams.overlap_px, seams.disagreement) == (0, None)
    assert (seams.changes.at_joins, seams.changes.p_value) == (0, None)
    assert seams.changes.elsewhere == 2 * TILE * (TILE - 1)


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    overlap=st.integers(0, 30),
    batch_size=st.integers(1, 4),
)
@settings(max_examples=10)
def test_disagreement_is_that_of_the_classes_of_single_tiles(
    height, width, overlap, batch_size, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("overlap")
    pixels = np.random.default_rng(height).integers(0, 200, (1, height, width)).astype(np.uint8)
    pixels[0, : height // 3, : width // 2] = 255
    scene = write_raster(folder / "s.tif", pixels, nodata=255)
    choices = SegmentationSettings(tile_px=31, overlap_px=overlap, batch_size=batch_size)
    model = SmoothModel(3)
    found = segment_scene(scene, model, folder / "map.tif", settings=choices)
    expected = disagreement_of_whole(pixels, model, make_plan(scene, model, choices)[0].grid)
    assert (found.seams.overlap_px, found.seams.disagreeing_px) == expected


def disagreement_of_whole(pixels: np.ndarray, model: FixedModel, grid: TileGrid) -> tuple[int, int]:
    """Pixels with data under several tiles, and those that not all tiles give one class."""
    side = grid.tile_px
    padded = np.pad(pixels, ((0, 0), (0, side), (0, side)), constant_values=255)
    votes = np.zeros((len(model.legend), *padded.shape[1:]), dtype=int)
    for row, col in itertools.product(grid.row_offsets, grid.col_offsets):
        tile = padded[:, row : row + side, col : col + side]
        answer = model.answer(torch.from_numpy(tile[None]), torch.from_numpy(tile != 255))
        winner = answer[0].argmax(dim=0).numpy()
        for channel in range(len(votes)):
            votes[channel, row : row + side, col : col + side] += winner == channel
    known = padded[0] != 255
    several = (votes.sum(axis=0) > 1) & known
    return int(several.sum()), int((several & ((votes > 0).sum(axis=0) > 1)).sum())


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile_px=st.integers(3, 25),
    share=st.floats(0, 0.9),
    piece_px=st.sampled_from([8, 16, 32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_rates_at_joins_are_those_of_the_whole_map(height, width, tile_px, share, piece_px, seed):
    grid = TileGrid(
        height=height,
        width=width,
        tile_px=tile_px,
        overlap_px=min(int(share * tile_px), tile_px - 1),
    )
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (height // 9 + 1, width // 9 + 1))
    class_ids = np.kron(coarse, np.ones((9, 9), int))[:height, :width].astype(np.uint8)
    class_ids[class_ids == 3] = 255
    counts = JoinCounts(grid, nodata=255, dtype=class_ids.dtype)
    for panel in windows_over(height=height, width=width, rows=height, cols=2 * piece_px):
        for piece in windows_over(
            height=panel.height, width=panel.width, rows=piece_px, cols=piece_px
        ):
            place = piece.shifted_by(rows=0, cols=panel.col_off)
            counts.add(place, class_ids[place.slices])
    for rates, run_px in zip(counts.rates(), (1, 8), strict=True):
        assert_same_rates(rates, rates_of_whole(class_ids, grid, run_px=run_px))


def assert_same_rates(found: JoinRates, expected: dict[str, float | None]) -> None:
    p_value = expected.pop("p_value")
    assert {name: getattr(found, name) for name in expected} == expected
    if p_value is None:
        assert found.p_value is None
    else:
        assert_allclose(found.p_value, p_value)


def rates_of_whole(
    class_ids: np.ndarray, grid: TileGrid, *, run_px: int
) -> dict[str, float | None]:
    """The same from the whole map: every line one by one, every shift of the joins one by one."""
    horizontal = lines_of(class_ids, grid.row_offsets, grid, run_px)
    vertical = lines_of(class_ids.T, grid.col_offsets, grid, run_px)
    stride = grid.stride_px

    def total(shifts: tuple[int, int]) -> np.ndarray:
        found = np.zeros(2, int)
        for lines, shift in zip((horizontal, vertical), shifts, strict=True):
            for phase, *counts in lines:
                if phase is not None:
                    for step in (-1, 0, 1):
                        if (phase - step - shift) % stride == 0:
                            found += counts
        return found

    joins = np.sum([c for p, *c in (*horizontal, *vertical) if p in (-1, 0, 1)] or [[0, 0]], axis=0)
    everywhere = np.sum([c for _, *c in (*horizontal, *vertical)] or [[0, 0]], axis=0)
    p_value = None
    if joins[0]:
        pairs = [total(shifts) for shifts in itertools.product(range(stride), repeat=2)]
        rates = [changes / places for places, changes in pairs if places]
        p_value = float(np.mean(np.array(rates) >= rates[0]))
    return {
        "at_joins": joins[0],
        "changed_at_joins": joins[1],
        "elsewhere": everywhere[0] - joins[0],
        "changed_elsewhere": everywhere[1] - joins[1],
        "p_value": p_value,
    }


def lines_of(class_ids: np.ndarray, offsets: np.ndarray, grid: TileGrid, run_px: int) -> list:
    """(distance from the nearest join or None, places, changes) of each line between two rows."""
    middles = [-(-(a + b + grid.tile_px) // 2) for a, b in itertools.pairwise(offsets.tolist())]
    found = []
    for line in range(1, len(class_ids)):
        before, after = class_ids[line - 1], class_ids[line]
        known = (before != 255) & (after != 255)
        changed = known & (before != after)
        whole = len(known) // run_px * run_px
        counts = [
            int(part[:whole].reshape(-1, run_px).all(axis=1).sum()) for part in (known, changed)
        ]
        distances = sorted((abs(line - at), line - at) for at in middles)
        phase = distances[0][1] if distances else None
        half = grid.stride_px // 2
        if phase is not None and not -half <= phase < grid.stride_px - half:
            phase = None
        found.append((phase, *counts))
    return found


def test_parts_and_panels_do_not_change_the_numbers(tmp_path, monkeypatch):
    pixels = np.kron(np.random.default_rng(5).integers(0, 250, (1, 110, 106)), np.ones((10, 10)))
    pixels[0, :400, :300] = 255
    scene = write_raster(tmp_path / "s.tif", pixels.astype(np.uint8), nodata=255)
    model = SmoothModel(3, tile_px=96)
    whole = segment_scene(scene, model, tmp_path / "whole.tif")
    plan, _ = make_plan(scene, model, SegmentationSettings())
    monkeypatch.setattr("geodinoseg.segmentation.plan._CHUNK_TILES", 32)
    narrow = SegmentationSettings(max_memory=plan.memory.panel_bytes(800))
    assert len(make_plan(scene, model, narrow)[0].chunks) == 9
    parts = segment_scene(scene, model, tmp_path / "parts.tif", settings=narrow)
    assert parts.seams == whole.seams
    assert whole.seams.disagreeing_px > 0


def test_the_numbers_are_in_the_map(tmp_path):
    scene = write_raster(tmp_path / "s.tif", checkered(3))
    raster = segment_scene(scene, StubbornModel(), tmp_path / "map.tif", settings=SETTINGS)
    again = open_class_raster(tmp_path / "map.tif").seams
    assert again == raster.seams
    assert again.to_json()["disagreement"] == again.disagreeing_px / again.overlap_px
    assert json.loads(json.dumps(again.to_json()))["changes"]["p_value"] == again.changes.p_value


def test_the_report_on_a_map_says_what_its_tiles_show(tmp_path):
    scene = write_raster(tmp_path / "s.tif", checkered(3))
    raster = segment_scene(scene, StubbornModel(), tmp_path / "map.tif", settings=SETTINGS)
    labels = segment_scene(scene, IdentityModel(3), tmp_path / "labels.tif", settings=SETTINGS)
    found = evaluate_map(raster, labels.path)
    text = write_report(tmp_path / "report.html", found).read_text("utf-8")
    assert str(raster.seams).startswith("disagree on 100.0% of their overlap; classes change at ")
    assert f"The map was computed in tiles, which {raster.seams}." in text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"changes": 3, "straight": 4}', "[" * 100_000]
)
def test_a_tag_that_is_none_of_ours_says_nothing(text):
    assert Seams.of_tags({SEAMS_TAG: text}) is None


RATES = {
    "at_joins": 9,
    "changed_at_joins": 3,
    "elsewhere": 90,
    "changed_elsewhere": 4,
    "p_value": 0.5,
}
FACTS = {"overlap_px": 20, "disagreeing_px": 2, "changes": RATES, "straight": RATES}


@pytest.mark.parametrize("value", [None, "3", -1, 1.5, 10**400, [], {}, float("nan")])
def test_impossible_numbers_in_a_tag_say_nothing(value):
    assert str(Seams.of_tags({SEAMS_TAG: json.dumps(FACTS)})).startswith("disagree on 10.0% of")
    for facts in (
        FACTS | {"overlap_px": value},
        FACTS | {"changes": value},
        FACTS | {"straight": RATES | {"at_joins": value}},
        FACTS | {"changes": RATES | {"p_value": -1 if value is None else value}},
    ):
        assert Seams.of_tags({SEAMS_TAG: json.dumps(facts)}) is None
