"""What is checked before a training: in a fresh process, where torch must not be loaded for it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from affine import Affine
from trainings import color_channels, write_squares

CODE = """
import sys
import geodinoseg as gds
for call in {calls!r}:
    try:
        eval(call, {{"gds": gds}})
    except gds.GeodinosegError as error:
        print(type(error).__name__, error, "torch" in sys.modules)
"""

MISTAKES = [
    ("train_model('nope.tif', 'nope.gpkg', 'NEW')", "SceneError nope.tif: no such file"),
    ("plan_training('nope.tif', 'nope.gpkg')", "SceneError nope.tif: no such file"),
    ("train_model('SCENE', 'LABELS', 'MODEL')", "OutputExistsError .*: exists already"),
    ("plan_training('SCENE', 'LABELS', 'MODEL')", "OutputExistsError .*: exists already"),
    ("train_model('nope.tif', 'LABELS', 'NEW/a.model')", "OutputError .* does not exist"),
    ("train_model('SCENE', 'nope.gpkg', 'NEW')", "LabelError nope.gpkg: no such file"),
    ("train_model('SCENE', None, 'NEW')", "LabelError no labels were given"),
    ("train_model('SCENE', ['LABELS'] * 3, 'NEW')", "LabelError 3 label files for 1 scenes"),
    (
        "train_model('SCENE', 'LABELS', 'NEW', label_options=gds.LabelOptions("
        "legend_file='nope.csv', extent='nope.gpkg'))",
        "LabelError nope.csv: no such file",
    ),
    (
        "train_model('SCENE', 'LABELS', 'NEW', label_options=gds.LabelOptions(extent='nope.gpkg'))",
        "LabelError nope.gpkg: no such file",
    ),
    (
        "train_model('SCENE', 'LABELS', 'NEW', label_options=gds.LabelOptions(class_field='kind'))",
        "LabelError .* no column 'kind'",
    ),
    ("train_model('SCENE', 'FAR', 'NEW')", "LabelError .*far.gpkg: lies outside the scene"),
    (
        "train_model('SCENE', 'LABELS', 'NEW', settings=gds.TrainingSettings(epochs=0))",
        "ModelError epochs=0: give a whole number of at least 1",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', settings=gds.TrainingSettings(crop_px=50))",
        "ModelError crops of 50 px: give a multiple of the backbone's patch, 14 px",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', settings=gds.TrainingSettings(crop_px=50), "
        "network={'backbone': 'BACKBONE'})",
        "ModelError crops of 50 px: give a multiple of the backbone's patch, 14 px",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', network={'size': 'huge'})",
        "ModelError size='huge': give one of small, base, large",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', network={'linear_head': False, 'channels': 24})",
        "ModelError channels=24: 2 pixel shuffles",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', network={'backbone': 'my/own/backbone'})",
        "ModelError backbone my/own/backbone: no such folder",
    ),
    (
        "plan_training('SCENE', 'FAR', network={'backbone': 'LABELS'})",
        "ModelError backbone .*labels.gpkg: no such folder",
    ),
    (
        "train_model('SCENE', 'FAR', 'NEW', device='toaster')",
        "DeviceError device 'toaster': give auto, cpu, cuda or cuda:N",
    ),
]


@pytest.fixture(scope="module")
def answers(color_field, small_model, backbone, tmp_path_factory):
    """What one fresh process answers to each mistake."""
    folder = tmp_path_factory.mktemp("mistakes")
    # In the CRS of the scene, 100 km away from it.
    far = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
    names = {
        "SCENE": color_field.scene,
        "LABELS": color_field.labels,
        "FAR": write_squares(folder / "far.gpkg", color_channels(), count=9, transform=far),
        "MODEL": small_model,
        "BACKBONE": backbone,
        "NEW": folder / "new.model",
    }
    calls = [
        re.sub(f"'({'|'.join(names)})", lambda name: f"'{names[name[1]]}", f"gds.{call}")
        for call, _ in MISTAKES
    ]
    probe = [sys.executable, "-c", CODE.format(calls=calls)]
    done = subprocess.run(probe, capture_output=True, text=True, check=True, timeout=120)
    assert not done.stderr
    assert [path.name for path in folder.iterdir()] == ["far.gpkg"]
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_answered_before_torch_is_loaded(number, answers):
    assert len(answers) == len(MISTAKES)
    assert re.match(MISTAKES[number][1], answers[number]), answers[number]
    assert answers[number].endswith(" False")
