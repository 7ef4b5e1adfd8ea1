"""Settings that all tests share."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

# Tests reach no network, and see no backbone that somebody downloaded before. Set before anything
# imports transformers, which reads it once.
_HUB = tempfile.TemporaryDirectory(prefix="geodinoseg-hub-")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": _HUB.name}

# No deadline: shared machines stall. Laws are cheap to state and must stay cheap to run.
settings.register_profile("geodinoseg", deadline=None, max_examples=40)
settings.load_profile("geodinoseg")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    _HUB.cleanup()
