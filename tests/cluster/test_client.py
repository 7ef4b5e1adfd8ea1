"""Workers in other processes: the same bytes, whatever dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from rasters import ROTATED, SmoothModel, parts_folder, write_raster

from geodinoseg.batch.scenes import find_scenes
from geodinoseg.batch.segment_scenes import segment_scenes
from geodinoseg.cluster.client import connect_workers
from geodinoseg.cluster.local import local_workers
from geodinoseg.errors import ClusterError, SchedulerError
from geodinoseg.model.folder import load_model
from geodinoseg.segmentation.segment import segment_scene
from geodinoseg.segmentation.settings import SegmentationSettings

HEIGHT, WIDTH, PARTS = 1180, 530, 3
SETTINGS = SegmentationSettings(tile_px=56, overlap_px=10)


class KnownModel(SmoothModel):
    """A model that workers can be sent.

    It gives time to kill somebody, or ends its process where the scene is bright, as a machine does
    that is out of memory.
    """

    fingerprint = "known"

    def __init__(self, pause_s: float = 0, *, is_deadly: bool = False):
        super().__init__(3, tile_px=56)
        self.pause_s, self.is_deadly = pause_s, is_deadly

    def answer(self, pixels, valid):
        time.sleep(self.pause_s)
        if self.is_deadly and int(pixels[valid[:, None]].max()) == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().answer(pixels, valid)


def scene_pixels() -> np.ndarray:
    values = np.random.default_rng(3).integers(0, 240, (1, HEIGHT // 10, WIDTH // 10))
    values = np.kron(values, np.ones((10, 10))).astype(np.uint8)
    values[0, :100, :70] = 255
    return values


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    return write_raster(folder / "scene.tif", scene_pixels(), transform=ROTATED, nodata=255)


@pytest.fixture(scope="module")
def alone(scene, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone")
    segment(scene, folder, KnownModel())
    return written(folder)


@pytest.fixture(scope="module")
def two_workers():
    with local_workers(2, device="cpu") as workers:
        yield workers


def segment(scene, folder, model, **options):
    return segment_scene(
        scene, model, folder / "map.tif", confidence=True, settings=SETTINGS, **options
    )


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_one_process(scene, alone, two_workers, tmp_path):
    told = []
    raster = segment(
        scene, tmp_path, KnownModel(), workers=two_workers, progress=lambda *args: told.append(args)
    )
    assert written(tmp_path) == alone  # with what the tags say of the seams
    assert raster.seams.disagreeing_px > 0
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert any("2 workers" in message for _, message in told)


def test_a_model_folder_is_found_by_workers_and_gives_the_same_bytes(
    small_model, two_workers, tmp_path, monkeypatch
):
    pixels = np.random.default_rng(0).integers(1, 250, (3, 1100, 300)).astype(np.uint8)
    write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED, nodata=0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    settings = SegmentationSettings(tile_px=84, overlap_px=10)
    model = os.path.relpath(small_model)
    segment_scene("scene.tif", model, "first/map.tif", settings=settings)
    segment_scene("scene.tif", model, "second/map.tif", settings=settings, workers=two_workers)
    assert written(tmp_path / "first") == written(tmp_path / "second")


def test_a_loaded_model_is_sent_to_workers_and_gives_the_same_bytes(
    small_model, two_workers, tmp_path
):
    pixels = np.random.default_rng(0).integers(1, 250, (3, 600, 200)).astype(np.uint8)
    scene = write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED, nodata=0)
    settings = SegmentationSettings(tile_px=84, overlap_px=10)
    model = load_model(small_model, device="cpu")
    for name, workers in (("alone", None), ("many", two_workers)):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "map.tif"
        segment_scene(scene, model, target, settings=settings, workers=workers)
    assert written(tmp_path / "alone") == written(tmp_path / "many")


def test_parts_that_are_there_are_not_computed_again(scene, alone, two_workers, tmp_path):
    class Stopped(BaseException):
        pass

    def stop(fraction, message):
        if " 0 of 3 parts" not in message:
            raise Stopped

    with pytest.raises(Stopped) as caught:
        segment(scene, tmp_path, KnownModel(pause_s=0.03), workers=two_workers, progress=stop)
    assert "Run the same command again" in caught.value.__notes__[0]
    seconds = time.time_ns()
    (first, *_) = sorted(parts_folder(tmp_path / "map.tif").glob("part-*"))
    assert first.stat().st_mtime_ns < seconds
    seen = []
    segment(scene, tmp_path, KnownModel(), progress=lambda *args: seen.append(args))
    assert seen[0][0] > 0.2
    assert written(tmp_path) == alone


def test_a_worker_that_sees_another_scene_says_so(scene, two_workers, tmp_path):
    from geodinoseg import open_scene
    from geodinoseg.cluster.worker import segment_chunks

    job = two_workers.prepare(
        open_scene(scene), KnownModel(), targets(tmp_path), SETTINGS, device="cpu"
    )
    folder = tmp_path / "map.tif.parts"
    from geodinoseg.segmentation.parts.run import open_parts
    from geodinoseg.segmentation.parts.store import part_store

    request = request_of(scene, tmp_path, job)
    with (
        contextlib.suppress(OSError),
        open_parts(
            part_store(tmp_path / "map.tif"),
            job.run,
            job.plan.layers,
            nodata=255,
            chunks=job.plan.chunks,
            resume=True,
        ),
    ):
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"header": "', '"header": "0'))
        with pytest.raises(
            Exception, match=r"its scene is a different one.*same scene and model"
        ) as caught:
            segment_chunks(request, [0], str(folder), job.run.key)
        assert "On the worker host" in caught.value.__notes__[0]
        with pytest.raises(Exception, match="storage that all workers share"):
            segment_chunks(request, [0], str(tmp_path / "elsewhere"), job.run.key)


def targets(folder):
    from geodinoseg.segmentation.outputs import MapFiles

    return MapFiles(class_raster=folder / "map.tif", confidence=folder / "c.tif")


def request_of(scene, folder, job):
    import dataclasses
    import pickle

    from geodinoseg import open_scene
    from geodinoseg.cluster.worker import Request

    return Request(
        scene=open_scene(scene),
        model=pickle.dumps(KnownModel()),
        files=targets(folder),
        settings=dataclasses.replace(SETTINGS, batch_size=job.plan.batch_size),
        device="cpu",
    )


def test_a_model_that_cannot_be_sent_is_refused_in_one_line(scene, two_workers, tmp_path):
    model = KnownModel()
    model.secret = lambda: None
    with pytest.raises(ClusterError, match=r"KnownModel cannot be sent.*save it as a model folder"):
        segment(scene, tmp_path, model, workers=two_workers)
    model.secret = bytes(20 << 20)
    with pytest.raises(ClusterError, match="KnownModel of 21 MB is too large"):
        segment(scene, tmp_path, model, workers=two_workers)
    assert written(tmp_path) == {}


def test_an_error_on_a_worker_is_the_error_of_the_run(scene, two_workers, tmp_path):
    broken = tmp_path / "scene.tif"
    write_raster(broken, scene_pixels(), nodata=255, compress="deflate", blockysize=16)
    data = bytearray(broken.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\xff" * 400
    broken.write_bytes(data)
    with pytest.raises(Exception, match=r"scene\.tif: rows .* cannot be read"):
        segment(broken, tmp_path, KnownModel(), workers=two_workers)


def test_nobody_at_the_address_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("geodinoseg.cluster.client._CONNECT_S", 0.5)
    answer = pytest.raises(SchedulerError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler answers")
    with answer, connect_workers("tcp://127.0.0.1:1"):
        pass


def test_a_worker_that_is_killed_costs_only_its_chunk(scene, alone, two_workers, tmp_path):
    killed = []

    def kill_one(fraction, message):
        if " 0 of 3 parts" not in message and not killed:
            killed.append(worker_processes(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    segment(scene, tmp_path, KnownModel(pause_s=0.03), workers=two_workers, progress=kill_one)
    assert killed
    assert written(tmp_path) == alone


@pytest.mark.slow
def test_a_worker_that_takes_long_to_start_again_is_waited_for(scene, alone, tmp_path):
    import dask
    import distributed  # noqa: F401 (its settings are to stay when the block below is left)

    killed, end = [], time.monotonic() + 100

    def kill_it(fraction, message):
        assert time.monotonic() < end, "no worker came back"
        if " 0 of 3 parts" not in message and not killed:
            killed.extend(worker_processes(os.getpid()))
            os.kill(killed[-1], signal.SIGKILL)

    # Where workers take longer than Dask allows, here to import PyTorch, it ended them for good.
    impatient = dask.config.set({"distributed.deploy.lost-worker-timeout": "0.5s"})
    with impatient, local_workers(1, device="cpu") as workers:
        model = KnownModel(pause_s=0.03)
        segment(scene, tmp_path, model, workers=workers, progress=kill_it)
    assert killed
    assert written(tmp_path) == alone


@pytest.mark.slow
def test_workers_that_cannot_be_started_again_end_the_run(scene, tmp_path, monkeypatch):
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    killed, end = [], time.monotonic() + 100

    def kill_for_good(fraction, message):
        assert time.monotonic() < end, "it waits for workers that nobody starts"
        if " 0 of 3 parts" not in message and not killed:
            (folder,) = scratch.iterdir()
            folder.rename(tmp_path / "away")
            folder.write_text("no folder")
            killed.extend(worker_processes(os.getpid()))
            os.kill(killed[-1], signal.SIGKILL)

    expected = pytest.raises(
        ClusterError, match="1 local workers: all have ended and cannot be restarted"
    )
    with local_workers(1, device="cpu") as workers, expected as caught:
        model = KnownModel(pause_s=0.03)
        segment(scene, out, model, workers=workers, progress=kill_for_good)
    assert "Run the same command again" in caught.value.__notes__[0]


def worker_processes(parent: int) -> list[int]:
    """Processes that another has spawned to work."""
    found = psutil.Process(parent).children(recursive=True)
    return [process.pid for process in found if "spawn_main" in " ".join(process.cmdline())]


@pytest.mark.slow
def test_a_chunk_that_kills_its_workers_is_named(tmp_path):
    pixels = scene_pixels()
    pixels[0, 700, 300] = 250
    bad = write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED, nodata=255)
    expected = r"scene\.tif: rows 512 to 1023, columns 0 to 529 \(part 1\) killed 3 workers"
    before = set(worker_processes(os.getpid()))
    with local_workers(2, device="cpu") as workers, pytest.raises(ClusterError, match=expected):
        segment(bad, tmp_path, KnownModel(is_deadly=True), workers=workers)
    end = time.monotonic() + 15  # one that was just being started again takes a moment to go
    while not set(worker_processes(os.getpid())) <= before:
        assert time.monotonic() < end
        time.sleep(0.1)
    kept = {path.name for path in parts_folder(tmp_path / "map.tif").glob("part-*")}
    assert "part-00001" not in kept
    assert kept


def test_many_scenes_go_to_the_same_workers_and_a_broken_one_stops_none(
    small_model, two_workers, tmp_path
):
    for index in range(2):
        pixels = np.random.default_rng(index).integers(1, 250, (3, 90, 70)).astype(np.uint8)
        write_raster(tmp_path / f"{index}.tif", pixels, transform=ROTATED, nodata=0)
    (tmp_path / "1b.tif").write_bytes(b"no raster")
    scenes = find_scenes([str(tmp_path)])
    for name, workers in (("alone", None), ("many", two_workers)):
        results = segment_scenes(scenes, small_model, tmp_path / name, workers=workers)
        assert [result.status for result in results] == ["done", "done", "failed"]
    for name in ("0.tif", "1.tif"):
        maps = {(tmp_path / way / name).read_bytes() for way in ("alone", "many")}
        assert len(maps) == 1


def test_a_model_that_cannot_be_unpacked_on_a_worker_is_said_in_one_line():
    from geodinoseg.cluster.worker import _load

    with pytest.raises(ClusterError, match=r"cannot be loaded here .*save it as a model folder"):
        _load(b"no pickle")


SCRIPT = """
import sys
import geodinoseg as gds

{guard}
def start():
    with gds.local_workers(1, device="cpu"):
        print("started")

try:
    start()
except gds.GeodinosegError as error:
    print("refused:", error)
"""


def run_script(path, guard):
    path.write_text(SCRIPT.format(guard=guard))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, path],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


@pytest.mark.parametrize(
    "guard",
    [
        "",
        pytest.param(
            "if __name__ == '__main__': pass  # and the call outside it", marks=pytest.mark.slow
        ),
    ],
)
def test_a_script_without_a_guard_is_told_so_in_one_line(guard, tmp_path):
    done = run_script(tmp_path / "map.py", guard)
    (line,) = done.stdout.splitlines()
    assert line.startswith("refused: ")
    assert line.endswith('put the call under if __name__ == "__main__":')
    if not guard:  # found in the script; elsewhere a worker may end before it can say so
        assert f"{tmp_path / 'map.py'}: worker processes import the script" in line
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_script_with_a_guard_of_another_kind_starts_its_workers(tmp_path):
    guard = (
        "import contextlib, multiprocessing\n"
        "if multiprocessing.current_process().name != 'MainProcess':\n"
        "    gds.local_workers = lambda *_, **__: contextlib.nullcontext()"
    )
    done = run_script(tmp_path / "map.py", guard)
    assert "started" in done.stdout.splitlines()
    assert "refused" not in done.stdout


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for workers in (local_workers(2), connect_workers("tcp://127.0.0.1:1")):
        missing = pytest.raises(ClusterError, match=r"pip install dask distributed\.$")
        with missing, workers:
            pass


@dataclass
class Cluster:
    """A scheduler and two workers, each a process as an administrator would start it."""

    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]
    file: Path
    log: Path


@contextlib.contextmanager
def cluster_in(folder: Path, workers: int = 2):
    file, log = folder / "scheduler.json", folder / "cluster.log"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    }
    started = []

    def start(*arguments):
        with log.open("a") as stream:
            command = [
                sys.executable,
                "-m",
                "dask",
                *arguments,
                "--scheduler-file",
                str(file),
                "--no-dashboard",
            ]
            started.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
            )
        return started[-1]

    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        found = [
            start("worker", "--nthreads", "1", "--memory-limit", "0", "--no-nanny")
            for _ in range(workers)
        ]
        yield Cluster(scheduler, found, file, log)
    finally:
        for process in started:
            process.kill()
            process.wait()


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "geodinoseg", "segment", *map(str, arguments)]


@pytest.fixture
def colors(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(1, 250, (3, 1700, 300)).astype(np.uint8)
    return write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED, nodata=0)


@pytest.fixture
def map_alone(colors, small_model, tmp_path) -> dict[str, bytes]:
    (tmp_path / "alone").mkdir()
    settings = SegmentationSettings(tile_px=84, overlap_px=10)
    segment_scene(colors, small_model, tmp_path / "alone" / "map.tif", settings=settings)
    return written(tmp_path / "alone")


@pytest.mark.slow
def test_a_running_cluster_writes_the_same_bytes_and_a_lost_scheduler_keeps_the_parts(
    colors, small_model, map_alone, tmp_path
):
    (tmp_path / "far").mkdir()
    wanted = command(
        colors,
        "--model",
        small_model,
        "-o",
        "far/map.tif",
        "--tile",
        84,
        "--overlap",
        10,
        "--scheduler",
    )
    with cluster_in(tmp_path) as cluster:
        wait_until(Path(cluster.file).exists, cluster.scheduler)
        result = subprocess.run(
            [*wanted, cluster.file],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert result.returncode == 0, result.stderr
        assert written(tmp_path / "far") == map_alone
        slow = [*wanted, cluster.file, "--overlap", "60", "--overwrite"]
        process = subprocess.Popen(slow, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        parts = parts_folder(tmp_path / "far" / "map.tif")
        wait_until(lambda: any(parts.glob("part-*")), process)
        cluster.scheduler.kill()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
    (line,) = [line for line in said.splitlines() if line.startswith("Error")]
    assert "the Dask scheduler is gone. Run the same command again to resume: " in line
    assert "Traceback" not in said
    assert "distributed" not in said
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    assert before
    scheduler = slow.index("--scheduler")
    alone = subprocess.run(
        slow[:scheduler] + slow[scheduler + 2 :],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert alone.returncode == 0, alone.stderr
    assert f"{len(before)} of " in alone.stderr
    assert "parts were done before" in alone.stderr


def wait_until(condition, process, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_ends_local_workers_too(colors, small_model, tmp_path):
    (tmp_path / "near").mkdir()
    wanted = command(
        colors,
        "--model",
        small_model,
        "-o",
        "near/map.tif",
        "--tile",
        84,
        "--overlap",
        10,
        "--workers",
        2,
    )
    process = subprocess.Popen(
        wanted, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parts = parts_folder(tmp_path / "near" / "map.tif")
    wait_until(lambda: any(parts.glob("part-*")), process)
    workers = worker_processes(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 15
    assert len(said.splitlines()) == 1, said
    assert "Run the same command again to resume" in said
    assert not [pid for pid in workers if psutil.pid_exists(pid)]


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_chunks_go_out_once_in_runs_down_a_panel_that_get_shorter(workers):
    from geodinoseg.cluster.client import _next_run
    from geodinoseg.segmentation.tile_grid import TileGrid

    grid = TileGrid(height=50_000, width=9_000, tile_px=518, overlap_px=133)
    chunks = grid.chunks(rows=512, cols=3_072)
    waiting, runs = deque(chunks), []
    plan = SimpleNamespace(grid=grid)
    while waiting:
        runs.append(_next_run(waiting, plan, workers))
    assert [chunk for run in runs for chunk in run] == list(chunks)
    assert all(len({chunk.core.col_off for chunk in run}) == 1 for run in runs)
    assert all(sum(len(range(*c.tile_rows)) for c in run) < 100 for run in runs)
    assert len(runs[0]) > 10
    assert len(runs[-1]) == 1
