"""The examples in the docstrings of public functions run, in the order of a first session."""

from __future__ import annotations

import doctest
import shutil

import pytest

import geodinoseg

ORDER = (
    "open_scene",
    "train_model",
    "load_model",
    "plan_segmentation",
    "segment_scene",
    "open_class_raster",
    "measure_areas",
    "segment_scenes",
    "polygonize",
    "write_polygons",
    "style_map",
    "evaluate_map",
    "draw_sample",
    "plot_map",
)


def examples_of(name: str) -> doctest.DocTest:
    text = getattr(geodinoseg, name).__doc__
    return doctest.DocTestParser().get_doctest(text, {}, name, None, None)


def test_every_function_that_users_begin_with_has_an_example():
    with_examples = {
        name
        for name in geodinoseg.__all__
        if callable(getattr(geodinoseg, name))
        and ">>>" in (getattr(geodinoseg, name).__doc__ or "")
    }
    assert with_examples == set(ORDER)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_examples_run(color_field, backbone, tmp_path, monkeypatch):
    shutil.copy(color_field.scene, tmp_path / "ortho.tif")
    for name in ("fields.gpkg", "check.gpkg"):
        shutil.copy(color_field.labels, tmp_path / name)
    shutil.copytree(backbone, tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for name in ORDER:
        runner.run(examples_of(name), out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 2 * len(ORDER)
