"""What is mistyped is answered at once, from Python and on the command line: without the hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from rasters import write_raster
from sampled_maps import write_map
from trainings import NAMES

PROBE = """
import json, socket, sys, time

def refused(*_, **__):
    raise AssertionError("the network was used")

socket.socket.connect = socket.getaddrinfo = refused
import geodinoseg as gds
from click.testing import CliRunner
from geodinoseg.cli import main

def answer(kind, call):
    if kind == "command":
        result = CliRunner().invoke(main, call)
        if not isinstance(result.exception, SystemExit):
            return repr(result.exception)
        return result.stderr.strip()
    try:
        eval(call, {"gds": gds})
    except gds.GeodinosegError as error:
        return f"Error: {error}"
    except Exception as error:
        return repr(error)
    return "no error"

for kind, call in json.loads(sys.stdin.read()):
    began = time.process_time()
    text = answer(kind, call)
    seconds = time.process_time() - began
    print(json.dumps([text, "torch" in sys.modules, seconds]), flush=True)
"""

BACKBONES = {
    "./backbne": "no such folder; did you mean ./backbone?",
    "backbne": "no such folder; did you mean backbone?",
    "models/bones": "no such folder; did you mean models/bone?",
    "modles/bone": "no such folder; did you mean models/bone?",
    "models/bone/x": "no such folder",
    "~/backbone": "no such folder; give one",
    r"C:\\models\\bone": "no such folder",
    "C:/models/bone": "no such folder",
    "crops.model": "no such folder",
    "SCENE": "no such folder",
}
TRAIN = "gds.{door}('SCENE', 'LABELS', 'new.model'{more})"
PYTHON = [
    *(
        (TRAIN.format(door=door, more=f", network={{'backbone': '{name}'}}"), words)
        for door in ("train_model", "plan_training")
        for name, words in BACKBONES.items()
    ),
    *(
        (text.replace("DOOR", door), words)
        for door in ("train_model", "plan_training")
        for text, words in (
            ("gds.DOOR('absent.tif', 'LABELS', 'new.model')", "absent.tif: no such file"),
            ("gds.DOOR('SCENE', 'absent.gpkg', 'new.model')", "absent.gpkg: no such file"),
            ("gds.DOOR('SCENE', ['a=absent.gpkg'], 'new.model')", "absent.gpkg: no such file"),
            ("gds.DOOR('SCENE', 'LABELS', 'absent/new.model')", "the folder absent does not exist"),
            (
                "gds.DOOR('SCENE', 'LABELS', 'new.model', "
                "label_options=gds.LabelOptions(legend_file='absent.csv'))",
                "absent.csv: no such file",
            ),
            (
                "gds.DOOR('SCENE', 'LABELS', 'new.model', "
                "label_options=gds.LabelOptions(extent='absent.gpkg'))",
                "absent.gpkg: no such file",
            ),
        )
    ),
    *(
        (text.replace("DOOR", door), words)
        for door in ("segment_scene", "plan_segmentation")
        for text, words in (
            ("gds.DOOR('absent.tif', 'MODEL', 'new.tif')", "absent.tif: no such file"),
            ("gds.DOOR('SCENE', 'absent.model', 'new.tif')", "absent.model: "),
            ("gds.DOOR('SCENE', 'MODEL', 'absent/new.tif')", "the folder absent does not exist"),
            (
                "gds.DOOR('SCENE', 'MODEL', 'new.tif', polygons=['absent/new.gpkg'])",
                "the folder absent does not exist",
            ),
        )
    ),
    ("gds.evaluate_map('absent.tif', 'LABELS')", "absent.tif: no such file"),
    ("gds.evaluate_map('MAP', 'absent.gpkg')", "absent.gpkg: no such file"),
    (
        "gds.evaluate_map('MAP', 'LABELS', options=gds.EvaluationOptions(regions='absent.gpkg'))",
        "absent.gpkg: no such file",
    ),
    (
        "gds.evaluate_map('MAP', 'LABELS', options=gds.EvaluationOptions(confidence='absent.tif'))",
        "absent.tif: no such file",
    ),
    (
        "gds.evaluate_map('MAP', 'LABELS', label_options=gds.LabelOptions(extent='absent.gpkg'))",
        "absent.gpkg: no such file",
    ),
    ("gds.evaluate_sample('MAP', 'absent.gpkg')", "absent.gpkg: no such file"),
    ("gds.draw_sample('absent.tif', 'points.gpkg')", "absent.tif: no such file"),
    ("gds.write_polygons('absent.tif', 'new.gpkg')", "absent.tif: no such file"),
    ("gds.plot_map('absent.tif', 'MAP', 'new.png')", "absent.tif: no such file"),
    ("gds.open_class_raster('MAP', legend_file='absent.csv')", "absent.csv: no such file"),
]
TRAIN_WORDS = "train SCENE --labels LABELS -o new.model"
COMMANDS = [
    *((f"{TRAIN_WORDS} --backbone {name}", words) for name, words in BACKBONES.items()),
    (f"{TRAIN_WORDS} --dry-run --backbone ./backbne", "no such folder"),
    ("train absent.tif --labels LABELS -o new.model", "absent.tif: no such file"),
    ("train SCENE --labels absent.gpkg -o new.model", "absent.gpkg: no such file"),
    ("train SCENE --labels a=absent.gpkg -o new.model", "absent.gpkg: no such file"),
    (f"{TRAIN_WORDS} --legend absent.csv", "absent.csv: no such file"),
    (f"{TRAIN_WORDS} --extent absent.gpkg", "absent.gpkg: no such file"),
    ("train SCENE --labels LABELS -o absent/new.model", "the folder absent does not exist"),
    ("segment absent.tif --model MODEL -o new.tif", "absent.tif: no such file"),
    ("segment SCENE --model absent.model -o new.tif", "absent.model: "),
    ("segment SCENE --model MODEL -o absent/new.tif", "the folder absent does not exist"),
    ("segment --scene-list absent.txt --model MODEL --output-dir maps", "absent.txt: "),
    ("segment SCENE --model absent.model --output-dir maps", "absent.model: "),
    ("evaluate MAP --labels absent.gpkg", "absent.gpkg: no such file"),
    ("evaluate MAP --sample absent.gpkg", "absent.gpkg: no such file"),
    ("evaluate MAP --labels LABELS --regions absent.gpkg", "absent.gpkg: no such file"),
    ("evaluate MAP --labels LABELS --extent absent.gpkg", "absent.gpkg: no such file"),
    ("evaluate MAP --labels LABELS --confidence absent.tif", "absent.tif: no such file"),
    ("evaluate MAP --labels LABELS --legend absent.csv", "absent.csv: no such file"),
    ("sample absent.tif -o points.gpkg", "absent.tif: no such file"),
    ("polygonize absent.tif -o new.gpkg", "absent.tif: no such file"),
    ("picture absent.tif MAP -o new.png", "absent.tif: no such file"),
    ("info absent.tif", "absent.tif: no such file"),
]
CASES = [("python", *case) for case in PYTHON] + [("command", *case) for case in COMMANDS]


@pytest.fixture(scope="module")
def answers(color_field, small_model, backbone, tmp_path_factory):
    """What one fresh process answers to all of them, in a folder with folders of its own."""
    folder = tmp_path_factory.mktemp("typed")
    for name in ("backbone", "models/bone"):
        (folder / name).mkdir(parents=True)
    names = {
        "SCENE": str(write_raster(folder / "scene.tif", read(color_field.scene))),
        "LABELS": str(color_field.labels),
        "MODEL": str(small_model),
        "MAP": str(folder / "map.tif"),
    }
    write_map(folder / "map.tif", color_field.channels, dict(enumerate(NAMES)))
    before = sorted(path.name for path in folder.rglob("*"))

    def filled(text):
        return re.sub(f"\\b({'|'.join(names)})\\b", lambda name: names[name[0]], text)

    calls = [
        (kind, filled(text) if kind == "python" else list(map(filled, text.split())))
        for kind, text, _ in CASES
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(calls),
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.rglob("*")) == before
    return [json.loads(line) for line in done.stdout.splitlines()]


def read(path):
    import rasterio

    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case[1] for case in CASES])
def test_a_wrong_path_is_answered_without_the_hub_and_without_torch(number, answers):
    text, has_torch, _ = answers[number]
    assert text.startswith("Error: ")
    assert "\n" not in text
    assert CASES[number][2] in text
    assert not has_torch
