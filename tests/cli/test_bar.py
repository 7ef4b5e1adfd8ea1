"""Progress on terminals of any width, in logs, and with messages in between."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import click
import pytest
from commands import call
from hypothesis import given, strategies as st
from terminal import cells, drawn

from geodinoseg.cli import bar
from geodinoseg.cli.console import report_errors

# What the commands report, with long numbers.
MESSAGES = [
    ("training", "features of the frozen backbone"),
    ("training", "LoRA, epoch 12/30, loss 0.123, mean IoU 0.812 (best 0.834)"),
    ("training", "all weights, epoch 112/300, loss 0.123, mean IoU 0.812 (best 0.834), fold 8/8"),
    ("segmenting", "0.52 Mpx/s"),
    ("segmenting", "0.52 Mpx/s, 1200 of 13000 parts, 16 workers"),
    ("segmenting", "S2B_MSIL2A_20230721T101609_N0509_R065_T33UUU_20230721T131203: 0.52 Mpx/s"),
    ("segmenting", "名" * 70 + ", 0.52 Mpx/s"),
    ("tracing", "1,234,567 polygons"),
]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_bar_keeps_to_one_line(columns):
    script = f"""if True:
        import time
        from geodinoseg.cli import bar
        bar._REDRAW_S = 0
        for label, message in {MESSAGES!r}:
            with bar.progress_bar(label) as progress:
                for done in (0, 0.1, 0.99, 1):
                    time.sleep(0.01)
                    progress(done, message)
    """
    text = drawn(columns, script)
    frames = re.sub(r"\x1b\[\?25[lh]", "", text).replace("\n", "\r").split("\r")
    assert len([frame for frame in frames if "%" in frame]) >= 4 * len(MESSAGES)
    # The last cell stays free: terminals differ in when they break the line after it.
    assert max(map(cells, frames)) < columns
    assert text.count("\n") == len(MESSAGES)
    seen = "".join(frames)
    assert "epoch 12/30" in seen
    assert "0.52 Mpx/s" in seen
    assert ("mean IoU 0.812 (best 0.834)" in seen) == (columns == 120)


@given(st.text(max_size=60), st.integers(0, 70))
def test_a_message_is_cut_to_the_cells_that_are_left(message, room):
    assert bar._width(bar.fitted(message, room)) <= room


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (40, "epoch 3/30, loss 0.5, mean IoU 0.8"),
        (34, "epoch 3/30, loss 0.5, mean IoU 0.8"),
        (33, "epoch 3/30, loss 0.5"),
        (12, "epoch 3/30"),
        (9, "epoch ..."),
        (3, ""),
        (0, ""),
    ],
)
def test_numbers_are_left_out_whole(room, shown):
    assert bar.fitted("epoch 3/30, loss 0.5, mean IoU 0.8", room) == shown


@pytest.mark.parametrize("progress", ['progress(0.3, "0.52 Mpx/s")', "pass"])
def test_a_warning_replaces_the_bar_rather_than_joining_it(progress):
    script = f"""if True:
        import click, logging
        from geodinoseg.cli import bar
        from geodinoseg.cli.console import report_errors
        with report_errors(click.Context(click.Command("x"))):
            with bar.progress_bar("segmenting") as progress:
                {progress}
                logging.getLogger("geodinoseg").warning("s.tif: is odd.")
    """
    assert "\r\x1b[KWarning: s.tif: is odd." in drawn(80, script)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_time_left_does_not_count_what_comes_before_the_first_progress(
    is_terminal, monkeypatch, capsys
):
    """Loading the model and the first batch take a minute, each further tile a second."""
    now = 0.0
    monkeypatch.setattr(bar.time, "monotonic", lambda: now)
    monkeypatch.setattr(bar, "_LINE_S", 0.0)
    monkeypatch.setattr(bar, "_REDRAW_S", 0.0)
    monkeypatch.setattr(bar.sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr(bar, "_columns", lambda: 100)
    with bar.progress_bar("segmenting") as progress:
        now += 60
        for tile in range(1, 101):
            progress(tile / 100, "0.52 Mpx/s")
            now += 1
    times = re.findall(r"about (\d+) (s|min) left|  (\d\d):(\d\d):(\d\d)", capsys.readouterr().err)
    first = times[0]
    assert (first[2:] == ("00", "01", "38")) if is_terminal else (first[:2] == ("2", "min"))


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(bar.time, "monotonic", lambda: now)
    with bar.progress_bar("segmenting") as progress:
        for second in range(161):  # the second half of an interrupted run
            now = 1000.0 + second
            progress(0.5 + second / 320, "0.52 Mpx/s")
    assert capsys.readouterr().err.splitlines() == [
        "segmenting: 59%, about 2 min left, 0.52 Mpx/s",
        "segmenting: 69%, about 2 min left, 0.52 Mpx/s",
        "segmenting: 78%, about 70 s left, 0.52 Mpx/s",
        "segmenting: 88%, about 40 s left, 0.52 Mpx/s",
        "segmenting: 97%, about 10 s left, 0.52 Mpx/s",
    ]


def test_a_short_run_prints_no_progress_into_a_log(capsys):
    with bar.progress_bar("tracing") as progress:
        for done in (0, 0.5, 1):
            progress(done, "12 polygons")
    assert capsys.readouterr().err == ""


def test_messages_of_other_libraries_are_not_printed(capsys):
    with report_errors(click.Context(click.Command("x"))):
        logging.getLogger("rasterio").warning("noise")
    assert capsys.readouterr().err == ""


def test_the_bar_is_not_loaded_before_it_is_drawn():
    code = f"""if True:
        import sys
        from geodinoseg.cli import main
        for words in ({call("info", "absent.tif")!r}, ["segment", "--help"]):
            try:
                main(words, prog_name="geodinoseg")
            except SystemExit:
                pass
        print("click._termui_impl" in sys.modules, "tqdm" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
