"""Settings and costly things that all tests share."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Tests reach no network, and see no backbone that somebody downloaded before. Set before anything
# imports transformers, which reads it once.
_HUB = tempfile.TemporaryDirectory(prefix="geodinoseg-hub-")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _HUB.name}
# Networks in tests are small: on a busy machine threads that wait for each other take three times
# as long as one. Read once when torch is imported, and by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: shared machines stall. Laws are cheap to state and must stay cheap to run.
settings.register_profile("geodinoseg", deadline=None, max_examples=40)
settings.load_profile("geodinoseg")


# A shell that runs the tests in the background has these ignored, and every process they start.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape output that is not Unicode: a process of xdist could not send it."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    _HUB.cleanup()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    """A folder with a DINOv2 of two layers and random weights."""
    from trainings import write_backbone

    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory, backbone) -> Path:
    """A model folder of three classes and three bands; its predictions mean nothing."""
    from trainings import small_segmentor

    from geodinoseg.model.folder import save_model

    folder = tmp_path_factory.mktemp("models") / "small.model"
    return save_model(small_segmentor(backbone), folder)


@pytest.fixture(scope="session")
def color_field(tmp_path_factory):
    """A scene on a rotated grid whose classes show by colour, with labels in another CRS."""
    from trainings import write_color_field

    return write_color_field(tmp_path_factory.mktemp("field"))


@pytest.fixture(scope="session")
def bucket():
    """A server that speaks S3."""
    from bucket_server import bucket_server

    with bucket_server() as server:
        yield server


@pytest.fixture
def aws(bucket, monkeypatch):
    """The same, and the environment that says how to reach it."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket
