"""What the tests of the command line share."""

from __future__ import annotations

import pytest
from workshop import open_workshop


@pytest.fixture(scope="session")
def all_inputs(tmp_path_factory, color_field, small_model, backbone):
    """Inputs of all commands; tests leave no outputs there."""
    folder = tmp_path_factory.mktemp("workshop")
    return open_workshop(folder, field=color_field, model=small_model, backbone=backbone)


@pytest.fixture
def workshop(all_inputs):
    """The same, with an empty folder for outputs."""
    all_inputs.clear()
    return all_inputs
