"""The command in a process of its own: signals, other processes, deaf streams, mistyped paths."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from rasters import write_raster

from geodinoseg.errors import OutputError
from geodinoseg.files.atomic import atomic_file, atomic_folder
from geodinoseg.files.locks import check_unlocked, lock_output, temporary_prefix

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(1, 255, (3, 1600, 900)).astype(np.uint8)
    return write_raster(tmp_path_factory.mktemp("scene") / "s.tif", pixels)


def command(scene, model, output, *more):
    base = [sys.executable, "-m", "geodinoseg", "segment", scene, "--model", model, "-o", output]
    return [str(word) for word in [*base, *more]]


def started(arguments, **options):
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for(condition, seconds=120):
    for _ in range(seconds * 20):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "terminated, as its terminal was closed"),
        (signal.SIGKILL, -9, None),
    ],
)
def test_a_command_that_is_stopped_says_how_to_go_on_and_goes_on(
    scene, small_model, tmp_path, number, code, why
):
    whole = tmp_path / "whole.tif"
    subprocess.run(command(scene, small_model, whole), check=True, capture_output=True)
    output = tmp_path / "map.tif"
    process = started(command(scene, small_model, output), start_new_session=True)
    wait_for(lambda: list(tmp_path.glob("map.tif.parts/part-*")))
    began = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode == code
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no child is left
    assert not output.exists()
    if why:
        (line,) = stderr.splitlines()
        assert line.startswith(f"Error: {why}. Run the same command")
        assert " parts are done." in line
    assert stdout == ""
    again = subprocess.run(
        command(scene, small_model, output), check=True, capture_output=True, text=True
    )
    assert "parts were done before; computing the rest." in again.stderr
    assert output.read_bytes() == whole.read_bytes()
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "map"))}
    assert names == {"map.tif", "map.tif.aux.xml", "map.qml"}


def test_who_asks_twice_disturbs_neither_the_tidying_up_nor_the_exit_code():
    script = textwrap.dedent("""
        import atexit, click, time
        from geodinoseg.cli import console
        atexit.register(time.sleep, 0.5)
        @click.command()
        @click.pass_context
        def work(ctx):
            with console.report_errors(ctx):
                try:
                    print("ready", flush=True)
                    time.sleep(60)
                finally:
                    print("tidying", flush=True)
                    time.sleep(0.5)
                    print("tidied", flush=True)
        work()
    """)
    process = started([sys.executable, "-c", script])
    for line in ("ready", "tidying", "tidied"):
        assert process.stdout.readline() == f"{line}\n"
        process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=15)
    assert process.returncode == 130
    assert stderr.splitlines() == ["Error: interrupted; no unfinished file was left."]


@pytest.mark.slow
def test_a_long_call_that_hears_no_signal_is_ended_all_the_same(tmp_path):
    script = textwrap.dedent("""
        import click, hashlib, pathlib, sys
        from geodinoseg.files.atomic import atomic_file
        from geodinoseg.cli import console
        from geodinoseg.cli import process as interrupts
        interrupts._GRACE_S = 0.5
        target = pathlib.Path(sys.argv.pop())
        @click.command()
        @click.pass_context
        def work(ctx):
            with console.report_errors(ctx), atomic_file(target) as path:
                path.write_bytes(bytes(1000))
                print("ready", flush=True)
                # As a long call into GDAL: no instruction of Python comes up meanwhile.
                hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
        work()
    """)
    process = started([sys.executable, "-c", script, str(tmp_path / "large.gpkg")])
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=15)
    assert process.returncode == 143
    assert "terminated during a long step; run the same command again: segment resumes" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".geojson"])
def test_polygons_that_are_stopped_end_at_once_and_leave_nothing(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 3, (6000, 6000)).astype(np.uint8)
    raster = write_raster(tmp_path / "map.tif", noise[None])
    arguments = ["polygonize", raster, "-o", tmp_path / f"out{suffix}"]
    process = started([sys.executable, "-m", "geodinoseg", *map(str, arguments)])
    wait_for(
        lambda: sum(path.stat().st_size for path in tmp_path.glob(".geodinoseg-*/*")) > 100_000_000
    )
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=15)
    assert process.returncode == 143
    # The second is the line of a busy machine, on which a step takes more than ten seconds.
    assert re.match(
        r"Error: terminated(; no unfinished| during a long step)", stderr.splitlines()[-1]
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]


@pytest.mark.slow
def test_what_is_to_outlive_its_terminal_does(scene, small_model, tmp_path):
    output = tmp_path / "map.tif"
    process = started(["nohup", *command(scene, small_model, output)])
    wait_for(lambda: list(tmp_path.glob("map.tif.parts/part-*")))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.exists()


@pytest.mark.slow
def test_two_commands_with_one_output_do_not_meet(scene, small_model, tmp_path):
    output = tmp_path / "map.tif"
    first = started(command(scene, small_model, output))
    wait_for(lambda: list(tmp_path.glob("map.tif.parts/part-*")))
    second = subprocess.run(
        command(scene, small_model, output), capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"another geodinoseg (process {first.pid}) is writing it" in second.stderr
    assert second.stderr.count("\n") == 1
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">/dev/full 2>/dev/full", "--json >/dev/full", "| true"])
def test_streams_that_take_nothing_do_no_harm(scene, small_model, tmp_path, closed):
    output = tmp_path / "map.tif"
    words = " ".join(command(scene, small_model, output))
    script = f"set -o pipefail; {words} {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    # Progress is printed now and then, as there is no terminal.
    stderr = re.sub(r"^segmenting: .*\n", "", done.stderr, flags=re.MULTILINE)
    assert (done.returncode, done.stdout, stderr) == (0, "", "")
    assert output.exists()


@pytest.mark.slow
def test_clock_locale_and_time_zone_change_no_byte(scene, small_model, tmp_path):
    found = []
    for index, (zone, locale) in enumerate([("UTC", "C"), ("Pacific/Kiritimati", "de_DE.UTF-8")]):
        output = tmp_path / str(index) / "map.tif"
        output.parent.mkdir()
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "LANG": locale}
        subprocess.run(
            command(scene, small_model, output), check=True, capture_output=True, env=environment
        )
        found.append({p.name: p.read_bytes() for p in output.parent.iterdir()})
        time.sleep(1.1)  # another second of the clock
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "damage", "full"])
def test_a_run_that_is_disturbed_at_random_moments_ends_with_the_same_bytes(how):
    mount = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False)
    if how == "full" and mount.returncode:
        how = "limit"
    words = ["--how", how, "--times", "5", "--height", "1500"]
    loop = [sys.executable, BENCHMARKS / "kill_loop.py", *words]
    done = subprocess.run(loop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lock_is_seen_by_another_process_and_goes_with_its_holder(tmp_path):
    output = tmp_path / "map.tif"
    script = (
        "import sys, time; from pathlib import Path; from geodinoseg.files.locks import lock_output\n"
        "with lock_output(Path(sys.argv[1])):\n  print('held', flush=True); time.sleep(60)"
    )
    holder = started([sys.executable, "-c", script, str(output)])
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=rf"another geodinoseg \(process {holder.pid}\)"):
        check_unlocked(output)
    with pytest.raises(OutputError, match="is writing it"), lock_output(output):
        pass
    holder.kill()
    holder.communicate()
    assert list(tmp_path.iterdir()), "the lock file of the dead is there"
    check_unlocked(output)
    with lock_output(output):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_kept(tmp_path):
    target, other = tmp_path / "map.tif", tmp_path / "other.tif"
    dead = tmp_path / f"{temporary_prefix(target)}dead"
    others = tmp_path / f"{temporary_prefix(other)}dead"
    foreign = tmp_path / ".geodinoseg-notes"
    for folder in (dead, others, foreign):
        folder.mkdir()
        (folder / "map.tif").write_text("half")
    with atomic_file(target) as first:
        first.write_text("whole")
        assert not dead.exists()
        with atomic_file(target) as second:
            second.write_text("also whole")
            assert first.exists(), "it is in use"
    assert target.read_text() == "whole"
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", others.name, foreign.name}


def test_a_folder_that_was_moved_away_by_a_killed_process_comes_back(tmp_path):
    target = tmp_path / "farm.model"
    dead = tmp_path / f"{temporary_prefix(target)}dead"
    (dead / "old").mkdir(parents=True)
    (dead / "old" / "config.json").write_text("{}")

    with pytest.raises(ValueError), atomic_folder(target):
        raise ValueError
    assert (target / "config.json").read_text() == "{}"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scene": "absent.tif"}, "absent.tif: no such file"),
        ({"--model": "absent.model"}, "absent.model: no such model folder"),
        ({"-o": "absent/map.tif"}, "the folder absent does not exist"),
        ({"-o": "map.png"}, "the name must end in .tif"),
        ({"--confidence": "absent/sure.tif"}, "the folder absent does not exist"),
        ({"--polygons": "map.xyz"}, "map.xyz"),
        ({"-o": "taken.tif"}, "taken.tif.parts: is not a geodinoseg parts folder"),
        ({"--max-memory": "much"}, "'much' is not a size such as 2GB"),
    ],
)
def test_a_mistyped_path_is_answered_before_torch_is_loaded(
    scene, small_model, tmp_path, changes, told
):
    (tmp_path / "taken.tif.parts").mkdir()
    options = {"scene": scene, "--model": small_model, "-o": "map.tif"} | changes
    arguments = ["segment", str(options.pop("scene"))]
    arguments += [str(word) for pair in options.items() for word in pair]
    script = (
        "import json, sys, time; began = time.process_time(); from geodinoseg.cli import main\n"
        f"try:\n  main({arguments!r})\n"
        "finally:\n  print(json.dumps(['torch' in sys.modules, time.process_time() - began]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert told in done.stderr
    has_torch, seconds = json.loads(done.stdout)
    assert not has_torch
    # Of the CPU, since machines stall; generous, since a full second is what is promised.
    assert seconds < 1.5
