"""Runs that are killed, damaged, full or disturbed, and what is left of them."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rasters import ROTATED, SmoothModel, parts_folder, read_raster, write_raster

from geodinoseg.errors import OutputError, SceneError
from geodinoseg.files.locks import lock_output
from geodinoseg.segmentation.parts.part_file import PartName, PartWriter, open_part
from geodinoseg.segmentation.parts.run import MANIFEST
from geodinoseg.segmentation.plan import make_plan
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

HEIGHT, WIDTH = 1090, 1060
CLASSES = 3
PARTS = 9


class KnownModel(SmoothModel):
    """A model that can be told from another, and fails or is killed on request."""

    def __init__(self, fingerprint="a"):
        super().__init__(CLASSES, tile_px=128)
        self.fingerprint = fingerprint
        self.calls = 0
        self.fails = lambda calls, tiles: None

    def answer(self, pixels, valid):
        self.calls += 1
        error = self.fails(self.calls, len(pixels))
        if error is not None:
            raise error
        return super().answer(pixels, valid)


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodinoseg.segmentation.plan._CHUNK_TILES", 32)
        yield


@pytest.fixture(scope="module")
def pixels():
    values = np.random.default_rng(3).integers(0, 250, (1, HEIGHT // 10, WIDTH // 10))
    values = np.kron(values, np.ones((10, 10))).astype(np.uint8)
    values[0, :400, :300] = 255
    return values


@dataclass
class Case:
    """A scene of nine parts in three panels, and how it is segmented."""

    folder: Path
    scene: Path
    settings: SegmentationSettings

    @property
    def output(self) -> Path:
        return self.folder / "map.tif"

    @property
    def parts(self) -> list[Path]:
        return sorted(parts_folder(self.output).glob("part-*"))

    def run(self, model=None, **options):
        wanted = {"confidence": True, "settings": self.settings} | options
        return segment_scene(self.scene, model or KnownModel(), self.output, **wanted)

    def bytes(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.folder.iterdir() if p.name.startswith("map")}

    def names(self) -> set[str]:
        return {p.name for p in self.folder.iterdir()}

    def stopped_after(self, parts: int, **options) -> None:
        """A run that was killed when so many parts were done."""
        seen = 0
        finish = PartWriter.finish

        def counted(writer):
            nonlocal seen
            if seen == parts:
                raise Killed
            seen += 1
            finish(writer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PartWriter, "finish", counted)
            with pytest.raises(Killed):
                self.run(**options)
        assert len(self.parts) == parts


def case_in(folder: Path, pixels) -> Case:
    scene = write_raster(folder / "scene.tif", pixels, transform=ROTATED, nodata=255)
    wide, _ = make_plan(scene, KnownModel(), SegmentationSettings(overlap_px=30), confidence=True)
    settings = SegmentationSettings(overlap_px=30, max_memory=wide.memory.panel_bytes(900))
    plan, _ = make_plan(scene, KnownModel(), settings, confidence=True)
    assert (plan.panels, len(plan.chunks)) == (3, PARTS)
    return Case(folder, scene, settings)


@pytest.fixture
def case(tmp_path, pixels):
    return case_in(tmp_path, pixels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pixels):
    """The bytes of an uninterrupted run."""
    case = case_in(tmp_path_factory.mktemp("whole"), pixels)
    case.run()
    return case.bytes()


def test_a_whole_run_leaves_nothing_but_its_outputs(case, whole):
    case.run()
    assert case.bytes() == whole
    assert case.names() == {"scene.tif", *whole}


@pytest.mark.parametrize("parts", [1, 4, 8])
def test_a_run_that_is_killed_goes_on_after_its_last_part(case, whole, parts, caplog):
    case.stopped_after(parts)
    assert not case.output.exists()
    model = KnownModel()
    with caplog.at_level(logging.INFO):
        raster = case.run(model)
    assert case.bytes() == whole  # with what the tags say of the seams
    assert raster.seams.disagreeing_px > 0
    assert case.names() == {"scene.tif", *whole}
    assert f"{parts} of 9 parts were done before" in caplog.text
    untouched = KnownModel()
    case.run(untouched, overwrite=True)
    assert 0 < model.calls < untouched.calls


@pytest.mark.slow
def test_wherever_a_run_is_killed_the_bytes_are_the_same(tmp_path, pixels, whole):
    model = KnownModel()
    case_in(folder_in(tmp_path, "count"), pixels).run(model)
    for call in range(1, model.calls + 1, 5):
        case = case_in(folder_in(tmp_path, str(call)), pixels)
        killed = KnownModel()
        killed.fails = lambda calls, _, call=call: Killed() if calls == call else None
        with pytest.raises(Killed):
            case.run(killed)
        case.run()
        assert case.bytes() == whole, call
        shutil.rmtree(case.folder)


def test_probabilities_are_kept_in_parts_too(tmp_path, pixels):
    case = case_in(tmp_path, pixels)
    options = {"probabilities": True, "settings": SegmentationSettings(overlap_px=30)}
    case.run(**options)
    expected = case.bytes()
    case.stopped_after(2, **options, overwrite=True)
    case.run(**options, overwrite=True)
    assert case.bytes() == expected
    assert "map_probabilities.tif" in expected


def folder_in(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(case, whole):
    for parts in range(1, PARTS - 1, 2):
        model = KnownModel()
        # Each gets a little further than the one before, and is killed amid a part.
        model.fails = lambda *_, parts=parts: Killed() if len(case.parts) >= parts else None
        with pytest.raises(Killed):
            case.run(model)
    case.run()
    assert case.bytes() == whole


def test_nothing_is_computed_where_all_parts_are_there(case, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("geodinoseg.segmentation.segment.assemble", killed_at_once)
        with pytest.raises(Killed):
            case.run()
    assert len(case.parts) == PARTS
    model = KnownModel()
    case.run(model)
    assert model.calls == 0
    assert case.bytes() == whole


@given(missing=st.sets(st.integers(0, PARTS - 1)))
@settings(max_examples=6)
def test_whatever_parts_are_missing_the_bytes_are_the_same(
    pixels, whole, tmp_path_factory, missing
):
    case = case_in(tmp_path_factory.mktemp("missing"), pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodinoseg.segmentation.segment.assemble", killed_at_once)
        with pytest.raises(Killed):
            case.run()
    for index in missing:
        case.parts[0].with_name(f"part-{index:05d}").unlink()
    case.run()
    assert case.bytes() == whole
    shutil.rmtree(case.folder)


def killed_at_once(*_, **__):
    raise Killed


def test_a_run_that_was_killed_before_its_first_part_leaves_nothing(case):
    model = KnownModel()
    model.fails = lambda calls, _: Killed()
    with pytest.raises(Killed):
        case.run(model)
    assert case.names() == {"scene.tif"}


def test_whoever_stops_a_run_is_told_how_to_go_on(case):
    model = KnownModel()
    model.fails = lambda calls, _: KeyboardInterrupt() if calls == 40 else None
    with pytest.raises(KeyboardInterrupt) as caught:
        case.run(model)
    done = len(case.parts)
    assert 0 < done < PARTS
    assert caught.value.__notes__ == [
        f"Run the same command again to resume: {done} of 9 parts are done."
    ]


def test_a_model_that_nothing_identifies_leaves_no_parts(case):
    model = KnownModel(fingerprint=None)
    model.fails = lambda calls, _: Killed() if calls == 25 else None
    with pytest.raises(Killed) as caught:
        case.run(model)
    assert case.names() == {"scene.tif"}
    assert not hasattr(caught.value, "__notes__")


def flip_a_bit(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut_short(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def cut_to_nothing(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def add_bytes(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def swap(path: Path, other: Path) -> None:
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def make_it_text(path: Path, other: Path) -> None:
    path.write_text("no part")


def repeat_the_tail(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes()[-40:])


@pytest.mark.parametrize(
    "damage",
    [flip_a_bit, cut_short, cut_to_nothing, add_bytes, swap, make_it_text, repeat_the_tail],
)
def test_parts_that_were_damaged_are_done_again(case, whole, damage):
    case.stopped_after(3)
    first, second, _ = case.parts
    damage(first, second)
    model = KnownModel()
    case.run(model)
    assert case.bytes() == whole


def test_a_folder_in_the_place_of_a_part_is_said_in_a_line_and_kept(case):
    case.stopped_after(2)
    place = case.parts[0]
    place.unlink()
    place.mkdir()
    with pytest.raises(OutputError, match=rf"{place.name}: could not be put there: .*directory"):
        case.run()
    assert place.is_dir()


def test_parts_of_another_scene_of_the_same_size_are_not_taken(case, whole, pixels, tmp_path):
    other = case_in(folder_in(tmp_path, "other"), 250 - pixels)
    other.stopped_after(3)
    case.stopped_after(2)
    for mine, foreign in zip(case.parts, other.parts, strict=False):
        mine.write_bytes(foreign.read_bytes())
    case.run()
    assert case.bytes() == whole


def test_every_bit_of_a_part_counts(case):
    case.stopped_after(1)
    (path,) = case.parts
    data = path.read_bytes()
    key = json.loads((path.parent / MANIFEST).read_text())["key"]
    plan, _ = make_plan(case.scene, KnownModel(), case.settings, confidence=True)
    name = PartName(key=key, chunk=0, window=plan.chunks[0].core)
    assert open_part(io.BytesIO(data), name, plan.layers) is not None
    rng = np.random.default_rng(0)
    for at in [*range(60), *range(len(data) - 60, len(data)), *rng.integers(0, len(data), 60)]:
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        assert open_part(io.BytesIO(broken), name, plan.layers) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"settings": {"overlap_px": 31}}, "overlap_px was 30, is 31 now"),
        ({"settings": {"batch_size": 3}}, "batch_size was 4, is 3 now"),
        ({"confidence": False}, "layers was"),
        ({"model": KnownModel("b")}, "its model is a different one or has changed since"),
    ],
)
def test_parts_of_another_run_are_refused_and_kept(case, whole, options, told):
    case.stopped_after(2)
    before = {path: path.read_bytes() for path in case.parts}
    if "settings" in options:
        chosen = {"overlap_px": 30, "max_memory": case.settings.max_memory} | options["settings"]
        options = {"settings": SegmentationSettings(**chosen)}
    with pytest.raises(OutputError, match="start over with --no-resume") as caught:
        case.run(**options)
    assert told in str(caught.value)
    assert "2 of 9 parts" in str(caught.value)
    assert {path: path.read_bytes() for path in case.parts} == before
    case.run(**options, resume=False)
    assert not parts_folder(case.output).exists()


def test_a_scene_that_was_changed_is_another_and_one_that_was_touched_is_not(case, whole, pixels):
    case.stopped_after(2)
    times = case.scene.stat()
    os.utime(case.scene, ns=(0, 0))
    killed = KnownModel()
    killed.fails = lambda *_: Killed()
    with pytest.raises(Killed):
        case.run(killed)
    assert len(case.parts) == 2
    changed = pixels.copy()
    changed[0, -1, -1] ^= 1
    write_raster(case.scene, changed, transform=ROTATED, nodata=255)
    os.utime(case.scene, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(OutputError, match="its scene is a different one or has changed since"):
        case.run()


def test_starting_over_computes_everything(case, whole):
    case.stopped_after(3)
    model, untouched = KnownModel(), KnownModel()
    case.run(model, resume=False)
    assert case.bytes() == whole
    case.run(untouched, overwrite=True)
    assert model.calls == untouched.calls


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("content", ["nothing", "files", "a manifest of others", "a link"])
def test_a_foreign_parts_folder_is_never_touched(case, resume, content):
    folder = parts_folder(case.output)
    folder.mkdir()
    if content == "files":
        (folder / "part-00000").write_text("mine")
    if content == "a manifest of others":
        (folder / MANIFEST).write_text(json.dumps({"format": "other", "run": {}}))
    if content == "a link":
        folder.rename(case.folder / "elsewhere")
        folder.symlink_to("elsewhere")
    before = {p: p.is_file() and p.read_bytes() for p in sorted(case.folder.rglob("*"))}
    model = KnownModel()
    with pytest.raises(OutputError, match=r"map\.tif\.parts: is not a geodinoseg parts folder"):
        case.run(model, resume=resume, overwrite=True)
    assert {p: p.is_file() and p.read_bytes() for p in sorted(case.folder.rglob("*"))} == before
    assert model.calls == 0


def test_any_cut_into_chunks_gives_the_same_bytes(tmp_path, pixels, whole, monkeypatch):
    for rows in (1024, 5120):
        case = case_in(folder_in(tmp_path, str(rows)), pixels)
        monkeypatch.setattr("geodinoseg.segmentation.plan._chunk_rows", lambda *_, rows=rows: rows)
        case.run()
        assert case.bytes() == whole
        monkeypatch.undo()


def test_a_disk_that_is_full_loses_no_part(case, whole, monkeypatch):
    case.stopped_after(1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "finish", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            case.run()
    assert caught.value.__notes__ == [
        "Run the same command again to resume: 1 of 9 parts are done."
    ]
    case.run()
    assert case.bytes() == whole


def test_a_block_that_cannot_be_read_keeps_what_was_done(case, monkeypatch):
    from geodinoseg.rasters.scene import SceneReader

    read = SceneReader.read

    def broken(reader, window):
        if window.row_off > 900:
            raise SceneError("scene.tif: rows 900 to 911 cannot be read.")
        return read(reader, window)

    monkeypatch.setattr(SceneReader, "read", broken)
    with pytest.raises(SceneError):
        case.run()
    assert len(case.parts) == 1


def test_a_small_memory_gives_smaller_batches_then_narrower_panels(case, caplog):
    model = KnownModel()
    seen = set()

    def fails(calls, tiles):
        seen.add(tiles)
        return torch.OutOfMemoryError("CUDA out of memory") if tiles > 1 else None

    model.fails = fails
    case.run(model)
    assert seen == {4, 2, 1}
    assert caplog.text.count("memory is too small") == 2
    found = read_raster(case.output)
    case.run(overwrite=True)
    np.testing.assert_array_equal(found, read_raster(case.output))


def test_panels_get_narrower_where_one_tile_does_not_fit_beside_them(case, caplog, monkeypatch):
    from geodinoseg.segmentation import inference

    made = []

    class Narrow(inference.Stitcher):
        def __init__(self, grid, chunk, **options):
            made.append(chunk.core.width)
            if chunk.core.width > 512:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(grid, chunk, **options)

    one = SegmentationSettings(overlap_px=30)
    case.run(settings=one)
    expected = read_raster(case.output)
    monkeypatch.setattr(inference, "Stitcher", Narrow)
    case.run(settings=one, overwrite=True)
    np.testing.assert_array_equal(read_raster(case.output), expected)
    assert made.count(WIDTH) == 1, "what does not fit is tried once"
    assert "continuing with 1024" in caplog.text
    assert "continuing with 512" in caplog.text
    assert (read_raster(case.output)[:400, :300] == 255).all()


def test_memory_that_holds_nothing_is_said_and_keeps_the_parts(case):
    case.stopped_after(2)
    model = KnownModel()
    model.fails = lambda calls, _: MemoryError()
    with pytest.raises(Exception, match=r"memory is too small for one tile of 128 px.*--tile"):
        case.run(model)
    assert len(case.parts) == 2
    assert not case.output.exists()


def test_what_is_not_about_memory_goes_up_untouched(case):
    model = KnownModel()
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    model.fails = lambda calls, _: error
    with pytest.raises(RuntimeError) as caught:
        case.run(model)
    assert caught.value is error
    assert model.calls == 1


def test_a_second_run_of_an_output_is_told_so(case):
    with lock_output(case.output), pytest.raises(OutputError, match="another geodinoseg"):
        case.run()
    with lock_output(case.folder / "map_confidence.tif"), pytest.raises(OutputError):
        case.run()
    case.run()
    assert not [name for name in case.names() if name.startswith(".")]
