"""The package as others import it: public names, and what is loaded by asking for them."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import geodinoseg

HEAVY = ("torch", "transformers", "rasterio", "geopandas", "matplotlib", "numpy")


def loaded_by(code: str, names: tuple[str, ...]) -> str:
    """Which of the modules a fresh interpreter has loaded after the code."""
    probe = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()[-1]


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import geodinoseg; dir(geodinoseg); geodinoseg.GeodinosegError", HEAVY) == ""


def test_choosing_settings_loads_no_torch():
    code = "import geodinoseg as g; g.TrainingSettings(epochs=3); g.LabelOptions(); g.open_scene"
    assert "torch" not in loaded_by(code, HEAVY).split()


def homes() -> dict[str, str]:
    """The module of each public name, as the stub has it."""
    stub = ast.parse(Path(geodinoseg.__file__).with_suffix(".pyi").read_text())
    return {
        alias.name: node.module or ""
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_public_names_are_those_of_the_stub():
    assert sorted(homes()) == sorted(geodinoseg.__all__)
    assert dir(geodinoseg) == sorted(geodinoseg.__all__)
    assert {"errors", "segment_scene", "__version__"} <= set(geodinoseg.__all__)


@pytest.mark.parametrize("name", geodinoseg.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(geodinoseg, name)
    assert value is getattr(geodinoseg, name)
    if name not in {"__version__", "errors"}:
        home = importlib.import_module(f"geodinoseg.{homes()[name]}")
        assert value is getattr(home, name)
        assert value.__module__ == home.__name__, "the stub names where it is defined"
        assert value.__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No geodinoseg attribute segment"):
        geodinoseg.segment  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("geodinoseg") == geodinoseg.__version__


def test_the_package_says_that_it_is_typed():
    assert (Path(geodinoseg.__file__).parent / "py.typed").is_file()


def test_the_errors_are_one_tree():
    errors = importlib.import_module("geodinoseg.errors")
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(kinds) >= 9
    assert all(issubclass(kind, geodinoseg.GeodinosegError) for kind in kinds)
    assert all(kind.__name__ in errors.__doc__ for kind in kinds)
