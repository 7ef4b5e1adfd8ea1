"""The command line and Python share their defaults: what a command passes on is compared.

Each command runs with the arguments that it requires. Its calls of public functions are intercepted,
and each value that they are given is compared with the default of the function, or of the field of
its settings.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping

import pytest
import torch
from commands import COMMANDS, cli

import geodinoseg
from geodinoseg.training import context
from geodinoseg.training.settings import TrainingSettings


class StoppedError(Exception):
    """The call that does the work was reached."""


SCENE, LABELS, MAP, MODEL = "scene.tif", "labels.gpkg", "map.tif", "small.model"
OPEN = ("open_scene", "open_class_raster", "find_scenes")
CASES = {
    "segment": (["segment", SCENE, "--model", MODEL, "-o", "OUT.tif"], "segment_scene"),
    "segment --dry-run": (
        ["segment", SCENE, "--model", MODEL, "-o", "OUT.tif", "--dry-run"],
        "plan_segmentation",
    ),
    "segment --output-dir": (
        ["segment", SCENE, "--model", MODEL, "--output-dir", "OUT"],
        "segment_scenes",
    ),
    "segment --output-dir --dry-run": (
        ["segment", SCENE, "--model", MODEL, "--output-dir", "OUT", "--dry-run"],
        "batch.segment_scenes.plan_scenes",
    ),
    "segment --workers": (
        ["segment", SCENE, "--model", MODEL, "-o", "OUT.tif", "--workers", "2"],
        "local_workers",
    ),
    "train": (["train", SCENE, "--labels", LABELS, "-o", "OUT.model"], "train_model"),
    "train --dry-run": (
        ["train", SCENE, "--labels", LABELS, "-o", "OUT.model", "--dry-run"],
        "plan_training",
    ),
    "polygonize": (["polygonize", MAP, "-o", "OUT.gpkg"], "write_polygons"),
    "evaluate --labels": (["evaluate", MAP, "--labels", LABELS], "evaluate_map"),
    "evaluate --sample": (["evaluate", MAP, "--sample", "points.gpkg"], "evaluate_sample"),
    "evaluate -o": (
        ["evaluate", MAP, "--sample", "points.gpkg", "-o", "OUT.json"],
        "write_report",
    ),
    "sample": (["sample", MAP, "-o", "OUT.gpkg"], "draw_sample"),
    "picture": (["picture", SCENE, MAP, "-o", "OUT.png"], "plot_map"),
    "info": (["info", SCENE], "open_scene"),
    "style": (["style", MAP, "legend.csv"], "style_map"),
}
"""Command: its words, and the public function that does its work."""

GIVEN = {
    "progress": "how it is told",
    "tell": "how it is told",
    "parts": "None is the folder beside the output",
}
OF_CASE = {"evaluate -o": {"by_sample"}, "train --dry-run": {"output"}}
"""What the words themselves give."""


def home_of(name):
    """The module that holds a function, and its name there."""
    if "." in name:
        module, _, name = name.rpartition(".")
        return importlib.import_module(f"geodinoseg.{module}"), name
    return importlib.import_module(getattr(geodinoseg, name).__module__), name


@pytest.fixture
def calls(monkeypatch):
    """The calls of public functions by name; the one to stop at raises."""
    found = {}

    def spy(name, *, is_last):
        home, attribute = home_of(name)
        function = getattr(home, attribute)

        def called(*args, **kwargs):
            bound = inspect.signature(function).bind(*args, **kwargs)
            found[name] = (function, bound.arguments)
            if is_last:
                raise StoppedError
            return function(*args, **kwargs)

        for module in (home, geodinoseg, importlib.import_module("geodinoseg.cli.info")):
            if module is home or attribute in dir(module):
                monkeypatch.setattr(module, attribute, called, raising=False)

    def run(words, last):
        for name in OPEN:
            if name != last:
                spy(name, is_last=False)
        spy(last, is_last=True)
        result = cli(*words)
        assert isinstance(result.exception, StoppedError), result.stderr or result.exception
        return found

    return run


def defaults_of(value):
    """The defaults of a dataclass by field."""
    return {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(value)
    }


def differences(value, default, name):
    """Where a value differs from a default, field by field."""
    if dataclasses.is_dataclass(value) and (default is None or isinstance(default, type(value))):
        fields = defaults_of(value)
        return [
            difference
            for field in fields
            for difference in differences(getattr(value, field), fields[field], f"{name}.{field}")
        ]
    if isinstance(value, Mapping | list | tuple):
        # An empty one means the same as None.
        is_same = list(value) == list(default or ())
    else:
        is_same = value == default
    return [] if is_same else [f"{name} is {value!r}, by default {default!r}"]


@pytest.mark.parametrize("case", CASES)
def test_a_command_passes_on_the_defaults_of_python(case, calls, workshop, small_model):
    words, last = CASES[case]
    places = {MODEL: small_model}
    names = {SCENE, LABELS, MAP, "points.gpkg"}
    words = [workshop.path(w) if w in names else places.get(w, w) for w in words]
    words = [
        w.replace("OUT", str(workshop.output("new"))) if isinstance(w, str) else w for w in words
    ]
    found = calls(words, last)
    assert last in found
    for name, (function, arguments) in found.items():
        parameters = inspect.signature(function).parameters
        wrong = [
            difference
            for argument, value in arguments.items()
            if parameters[argument].default is not inspect.Parameter.empty
            and argument not in {*GIVEN, *OF_CASE.get(case, ())}
            for difference in differences(value, parameters[argument].default, argument)
        ]
        assert not wrong, f"{name}: {wrong}"


def test_every_command_is_compared():
    assert {words[0] for words, _ in CASES.values()} == set(COMMANDS)


def test_a_default_of_one_door_alone_is_found():
    settings = TrainingSettings(epochs=31)
    assert differences(settings, None, "settings") == ["settings.epochs is 31, by default 15"]
    assert differences(True, False, "quantize") == ["quantize is True, by default False"]
    assert differences({"quantize": False}, None, "network") != []
    assert differences([], (), "polygons") == differences({}, None, "network") == []


@pytest.mark.parametrize(
    ("device", "stage", "given", "expected"),
    [
        ("cpu", "lora", {}, False),
        ("cpu", "lora", {"quantize": None}, False),
        ("cpu", "head", {"quantize": True}, True),
        ("cuda", "lora", {}, True),
        ("cuda", "head", {"quantize": False}, False),
        ("cuda", "full", {"quantize": True}, False),
    ],
)
def test_the_backbone_is_in_4_bit_on_a_gpu_alone(device, stage, given, expected, monkeypatch):
    """Decided below the command and `train_model`, where the device is known."""

    def built(**arguments):
        raise StoppedError(arguments["quantize"])

    class Data:
        legend, bands, components, rgb = (1, 2), (1, 2, 3), None, None

    monkeypatch.setattr(context, "DinoV2Segmentor", built)
    with pytest.raises(StoppedError, match=str(expected)):
        context.build_network(given, Data, TrainingSettings(stage=stage), torch.device(device))
