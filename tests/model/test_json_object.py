"""JSON of models and backbones: whatever is no object is named, with what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
from model_fixtures import backbone_folder

from geodinoseg.errors import ModelError, ModelFolderError
from geodinoseg.model.backbone import read_backbone_config
from geodinoseg.model.config import is_model_folder, read_model_config
from geodinoseg.model.folder import load_model
from geodinoseg.model.json_object import WrongJsonError, read_json_object

WRONG = {
    "[]": "holds a list",
    "null": "holds null",
    "3": "holds a number",
    "-0.5": "holds a number",
    "true": "holds true or false",
    '"dinov2"': "holds a string",
    "": "is empty",
    " \n": "is empty",
    "{": "cannot be read",
    '{"a": "%s"}' % ("b" * 20_000): "a string of 20,000 characters",
    '{"%s": 1}' % ("b" * 20_000): "a string of 20,000 characters",
    '{"a": [{"b": ["%s"]}]}' % ("c" * 20_000): "a string of 20,000 characters",
    "[" * 100_000: "cannot be read",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:12])
def test_what_is_wrong_with_a_file_is_said_and_the_file_named(text, small_model, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(WrongJsonError, match=WRONG[text]):
        read_json_object(tmp_path / "a.json")
    folder = shutil.copytree(small_model, tmp_path / "a.model")
    (folder / "config.json").write_text(text)
    check(ModelFolderError, lambda: read_model_config(folder), f"{folder}: config.json", text)
    assert not is_model_folder(folder)
    bones = shutil.copytree(backbone_folder(), tmp_path / "bones")
    (bones / "config.json").write_text(text)
    check(ModelError, lambda: read_backbone_config(bones), f"{bones / 'config.json'}", text)
    inner = shutil.copytree(small_model, tmp_path / "b.model")
    (inner / "backbone" / "config.json").write_text(text)
    values = json.loads((inner / "config.json").read_text())
    values["sha256"].pop("backbone/config.json")
    (inner / "config.json").write_text(json.dumps(values))
    check(ModelFolderError, lambda: load_model(inner), f"{inner}/backbone/config.json", text)


def check(kind, call, names, text):
    with pytest.raises(kind) as caught:
        call()
    assert names in str(caught.value)
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": {"name": "a" * 100_000, "revision": None}},
        {"backbone": {"name": "a/" + "b" * 97, "revision": None}},
        {"backbone": {"name": "a/b", "revision": "c" * 201}},
        {"backbone": {"name": "a/b", "revision": "../../etc"}},
        {"backbone": {"name": "a/b", "revision": ""}},
        {"training": {"outcome": "d" * 100_000}},
        {"geodinoseg_version": "e" * 100_000},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_text_of_a_model_has_a_bounded_length(changes, small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "a.model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFolderError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"{folder}: config.json")
    assert len(str(caught.value)) < 1_000


def test_a_backbone_without_a_configuration_is_told_which_file_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"config.json is missing; give a folder that holds"):
        read_backbone_config(tmp_path)
