"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# No deadline: shared machines stall. Laws are cheap to state and must stay cheap to run.
settings.register_profile("geodinoseg", deadline=None, max_examples=40)
settings.load_profile("geodinoseg")
