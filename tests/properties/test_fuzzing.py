"""A slice of the fuzzer in every run, 500 files in the slow one; in processes, as one may crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "fuzzing.py"


def fuzz(*arguments, timeout):
    result = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3_000:]
    # The script must not be one that calls everything right because nothing is ever read.
    assert "raster, refused" in result.stdout
    assert "raster, as GDAL reads it" in result.stdout
    return result.stdout


@pytest.mark.slow
def test_damaged_rasters_are_refused_in_words_or_read_as_gdal_reads_them():
    fuzz("--count", 24, "--seed", 2, timeout=200)


@pytest.mark.slow
def test_500_damaged_rasters_and_models_are_refused_in_words_or_do_no_harm(small_model):
    counts = fuzz("--count", 500, "--seed", 7, "--model", small_model, timeout=280)
    assert "model, refused" in counts
    assert "model, loaded" in counts
