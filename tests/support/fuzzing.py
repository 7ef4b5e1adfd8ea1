"""Damaged rasters and model folders by the hundred, each from its number: what is said of them?

Law: a file is refused in one line that begins with its path, or what comes out is what GDAL alone
reads from it (of the few that GDAL alone reads differently each time nobody can say); nothing is left at the output path of a file that was refused.

    python tests/support/fuzzing.py --count 500 --seed 1            # a table, exit 1 where the law is broken
    python tests/support/fuzzing.py --count 500 --seed 1 --only 37  # one file again, kept
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasters import IdentityModel, write_raster

import geodinoseg
from geodinoseg.errors import GeodinosegError
from geodinoseg.rasters.scene import open_scene
from geodinoseg.windows import Window, windows_over

LIMIT_S = 30
"""A file that takes longer hangs."""
_TWO_MINDS = "raster, read by GDAL in two ways"
_MOST_TWO_MINDS = 0.01
_LARGEST_PX = 1 << 21  # what claims more is sparse; its corners are read, not all of it
_HEIGHT, _WIDTH = 75, 97
_EXTREMES = (0, 1, 2, 7, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_KINDS = {
    "deflate, tiled": {"compress": "deflate", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "deflate, strips": {"compress": "deflate", "blockysize": 16, "predictor": 2},
    "lzw": {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 32},
    "zstd": {"compress": "zstd", "tiled": True, "blockxsize": 32, "blockysize": 16},
    "jpeg": {"compress": "jpeg", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "uncompressed": {"tiled": True, "blockxsize": 32, "blockysize": 32},
    "uncompressed, strips": {"blockysize": 5, "interleave": "band"},
    "packbits": {"compress": "packbits"},
    "BigTIFF": {"compress": "deflate", "BIGTIFF": "YES", "blockysize": 8},
    "masked": {"compress": "deflate", "mask": np.tri(_HEIGHT, _WIDTH, dtype=bool)},
    "big-endian": {"compress": "deflate", "ENDIANNESS": "BIG", "nodata": 0},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    parser.add_argument("--model", type=Path, help="a model folder; every fifth file is one then")
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _too_long)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as name:
        bases = _bases(Path(name))
        for number in range(options.count) if options.only is None else [options.only]:
            folder = Path(tempfile.mkdtemp(dir=name))
            rng = np.random.default_rng([options.seed, number])
            print(f"{number}", end=" ", flush=True, file=sys.stderr)
            signal.alarm(LIMIT_S)
            try:
                if options.model and number % 5 == 4:
                    outcomes[_model(rng, folder, options.model)] += 1
                else:
                    outcomes[_raster(rng, folder, bases)] += 1
            except Exception:  # noqa: BLE001 (whatever it is, the law is broken)
                traceback.print_exc()
                outcomes["BROKEN LAW"] += 1
                kept = Path(tempfile.mkdtemp(prefix=f"fuzzing-{options.seed}-{number}-"))
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                print(f"\nfile {number} of seed {options.seed}: {kept}", file=sys.stderr)
            finally:
                signal.alarm(0)
            shutil.rmtree(folder)
    for outcome, files in sorted(outcomes.items()):
        print(f"{outcome:40} {files:6}")
    too_many = outcomes[_TWO_MINDS] > _MOST_TWO_MINDS * options.count
    return int("BROKEN LAW" in outcomes or too_many)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s")


def _bases(folder: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    ramps = np.add.outer(np.arange(_HEIGHT), np.arange(_WIDTH)) // 9 % 4
    pixels = np.stack([ramps, 3 - ramps, rng.integers(0, 4, ramps.shape)]).astype(np.uint8)
    return {
        kind: write_raster(folder / f"{i}.tif", pixels, **profile).read_bytes()
        for i, (kind, profile) in enumerate(_KINDS.items())
    }


def _raster(rng: np.random.Generator, folder: Path, bases: dict[str, bytes]) -> str:
    kind = list(bases)[rng.integers(len(bases))]
    content = bytearray(bases[kind])
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        damage = _DAMAGES[rng.integers(len(_DAMAGES))]
        content = damage(rng, content)
    path = folder / "scene.tif"
    path.write_bytes(content)
    expected = _by_gdal(path)
    try:
        scene = open_scene(path)
        if scene.width * scene.height > _LARGEST_PX:
            _corners(scene)
            return "raster, too large to be read whole"
        pixels = _by_rows(scene)
        if rng.random() < 0.3:
            _check_map(path, scene, pixels)
    except GeodinosegError as error:
        _check_words(path, error)
        return "raster, refused"
    if expected is None:
        raise AssertionError(f"{kind}: read, and GDAL cannot")
    if not np.array_equal(pixels, expected[[band - 1 for band in scene.bands]]):
        if not all(np.array_equal(expected, _by_gdal(path)) for _ in range(4)):
            # Memory that nobody wrote to, without an error: nothing that a reader could notice.
            return _TWO_MINDS
        raise AssertionError(f"{kind}: read otherwise than GDAL reads it")
    return "raster, as GDAL reads it"


def _by_gdal(path: Path) -> np.ndarray | None:
    """All pixels, in one thread, block by block; None where that fails."""
    try:
        with (
            rasterio.Env(GDAL_NUM_THREADS="1", GDAL_CACHEMAX=1 << 26),
            rasterio.DatasetReader(str(path), driver=["GTiff"], sharing=False) as dataset,
        ):
            if dataset.width * dataset.height > _LARGEST_PX or dataset.count > 99:
                return None
            return dataset.read()
    except (RasterioError, OSError, ValueError, MemoryError):
        return None


def _by_rows(scene) -> np.ndarray:
    with scene.reader() as reader:
        windows = windows_over(height=scene.height, width=scene.width, rows=16, cols=scene.width)
        return np.concatenate([reader.read(window)[0] for window in windows], axis=1)


def _corners(scene) -> None:
    side = min(scene.width, scene.height, 8)
    for col, row in ((0, 0), (scene.width - side, scene.height - side)):
        scene.read(Window(col_off=col, row_off=row, width=side, height=side))


def _check_map(path: Path, scene, pixels: np.ndarray) -> None:
    """A map is whole and says what the pixels say; one of an unreadable file is not there."""
    output = path.with_name("map.tif")
    model = IdentityModel(4, 32)
    model.bands = scene.bands[:1]
    try:
        raster = geodinoseg.segment_scene(path, model, output)
    except GeodinosegError:
        left = [p.name for p in path.parent.iterdir() if p != path]
        if left:
            raise AssertionError(f"refused, and left {left}") from None
        raise
    whole = Window(col_off=0, row_off=0, width=scene.width, height=scene.height)
    class_ids, valid = raster.read(whole), open_scene(path, bands=model.bands).read(whole)[1]
    wanted = np.nan_to_num(pixels[0].astype(np.float32)).clip(0, 3)
    if not np.array_equal(class_ids[valid], wanted[valid].astype(class_ids.dtype)):
        raise AssertionError("the map is not that of the pixels")


def _check_words(path: Path, error: Exception) -> None:
    text = str(error)
    if not text.startswith(str(path)) or "\n" in text or len(text) > 2_000:
        raise AssertionError(f"said badly: {text!r}") from error


def _model(rng: np.random.Generator, folder: Path, base: Path) -> str:
    from geodinoseg.errors import ModelFolderError  # (torch is not always needed)
    from geodinoseg.model.folder import load_model

    place = Path(shutil.copytree(base, folder / "a.model"))
    damage = _MODEL_DAMAGES[rng.integers(len(_MODEL_DAMAGES))]
    damage(rng, place)
    try:
        model = load_model(place, device="cpu")
    except ModelFolderError as error:
        _check_words(place, error)
        return "model, refused"
    weights = [
        tensor for tensor in model.network.state_dict().values() if tensor.is_floating_point()
    ]
    if not all(bool(tensor.isfinite().all()) for tensor in weights):
        raise AssertionError("loaded with weights that are not finite")
    return "model, loaded"


def _cut(rng, content):
    return content[: rng.integers(len(content))]


def _flip(rng, content):
    return _flipped(rng, content, 0, len(content))


def _flip_header(rng, content):
    return _flipped(rng, content, 0, 400)


def _flipped(rng, content, first, last):
    last = min(last, len(content))
    for _ in range(rng.integers(1, 12)):
        if last > first:
            content[rng.integers(first, last)] ^= 1 << rng.integers(8)
    return content


def _zero(rng, content):
    at, length = rng.integers(len(content) + 1), rng.integers(1, 600)
    content[at : at + length] = bytes(len(content[at : at + length]))
    return content


def _drop(rng, content):
    at = rng.integers(len(content) + 1)
    del content[at : at + rng.integers(1, 60)]
    return content


def _insert(rng, content):
    at = rng.integers(len(content) + 1)
    content[at:at] = rng.bytes(rng.integers(1, 60))
    return content


def _swap(rng, content):
    if len(content) < 400:
        return content
    a, b = rng.integers(len(content) - 100, size=2)
    content[a : a + 100], content[b : b + 100] = content[b : b + 100], content[a : a + 100]
    return content


def _entry(rng, content):
    """Change a field of the first directory: tag, type, count or value."""
    order = ">" if content[:2] == b"MM" else "<"
    if len(content) < 16 or bytes(content[2:4]) not in {b"*\0", b"\0*"}:
        return _flipped(rng, content, 0, 300)
    (at,) = struct.unpack_from(order + "I", content, 4)
    if at + 2 > len(content):
        return content
    (entries,) = struct.unpack_from(order + "H", content, at)
    place = at + 2 + 12 * int(rng.integers(max(entries, 1))) + int(rng.choice([0, 2, 4, 8]))
    if place + 4 <= len(content):
        value = int(rng.choice([*_EXTREMES, at, len(content), len(content) - 1, 8]))
        struct.pack_into(order + "I", content, place, value)
    return content


def _cycle(rng, content):
    """Let a directory follow itself, or lie beyond the file."""
    order = ">" if content[:2] == b"MM" else "<"
    if len(content) < 16 or bytes(content[2:4]) not in {b"*\0", b"\0*"}:
        return _flipped(rng, content, 0, 16)
    (at,) = struct.unpack_from(order + "I", content, 4)
    if at + 2 > len(content):
        return content
    (entries,) = struct.unpack_from(order + "H", content, at)
    if at + 6 + 12 * entries <= len(content):
        following = int(rng.choice([at, at + 2, len(content) + 99, 4]))
        struct.pack_into(order + "I", content, at + 2 + 12 * entries, following)
    return content


_DAMAGES = (_cut, _flip, _flip_header, _zero, _drop, _insert, _swap, _entry, _entry, _entry, _cycle)
_VALUES = (None, -1, 0, 1.5, "x", True, [], {}, [[]], 10**30, "a" * 10_000, [1] * 5_000, {"a": {}})


def _config_value(rng, place):
    path = place / "config.json"
    values = json.loads(path.read_text())
    target = values
    key = list(values)[rng.integers(len(values))]
    if isinstance(values[key], dict) and values[key] and rng.random() < 0.7:
        target = values[key]
        key = list(target)[rng.integers(len(target))]
    target[key] = _VALUES[rng.integers(len(_VALUES))]
    path.write_text(json.dumps(values))


def _config_bytes(rng, place):
    path = place / "config.json"
    path.write_bytes(_DAMAGES[rng.integers(7)](rng, bytearray(path.read_bytes())))


def _backbone_value(rng, place):
    path = place / "backbone" / "config.json"
    values = json.loads(path.read_text())
    values[list(values)[rng.integers(len(values))]] = _VALUES[rng.integers(len(_VALUES))]
    path.write_text(json.dumps(values))
    _renew(place)


def _weights_bytes(rng, place):
    path = place / ("model.safetensors" if rng.random() < 0.5 else "backbone/model.safetensors")
    path.write_bytes(_DAMAGES[rng.integers(7)](rng, bytearray(path.read_bytes())))
    if rng.random() < 0.8:
        _renew(place)


def _weights_header(rng, place):
    """A header of another length, or one that claims other shapes and places."""
    path = place / ("model.safetensors" if rng.random() < 0.5 else "backbone/model.safetensors")
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    name = [key for key in header if key != "__metadata__"][rng.integers(len(header) - 1)]
    field = ("shape", "dtype", "data_offsets")[rng.integers(3)]
    header[name][field] = {
        "shape": [int(v) for v in rng.choice([0, 1, 3, 1 << 40], 2)],
        "dtype": str(rng.choice(["F16", "I64", "F64", "BOOL", "X"])),
        "data_offsets": [int(v) for v in rng.choice([0, 4, 1 << 50, 77], 2)],
    }[field]
    text = json.dumps(header).encode()
    claimed = len(text) if rng.random() < 0.7 else int(rng.choice([0, 1 << 30, 1 << 62, 5]))
    path.write_bytes(struct.pack("<Q", claimed) + text + content[8 + length :])
    _renew(place)


def _other_file(rng, place):
    files = [p for p in place.rglob("*") if p.is_file()]
    a, b = (files[i] for i in rng.choice(len(files), 2, replace=False))
    shutil.copy(a, place / "kept")
    shutil.copy(b, a)
    shutil.copy(place / "kept", b)
    (place / "kept").unlink()
    if rng.random() < 0.5 and (place / "config.json").read_bytes()[:1] == b"{":
        _renew(place)


def _renew(place):
    """Checksums that fit, as of whoever wants his file to be loaded."""
    from geodinoseg.model.folder import _checksums

    path = place / "config.json"
    values = json.loads(path.read_text())
    sums = _checksums(place)
    if isinstance(values, dict) and "sha256" in values:
        values["sha256"] = {name: sums[name] for name in sums if name != "config.json"}
        path.write_text(json.dumps(values))


_MODEL_DAMAGES = (
    _config_value,
    _config_value,
    _config_bytes,
    _backbone_value,
    _weights_bytes,
    _weights_header,
    _other_file,
)

if __name__ == "__main__":
    sys.exit(main())
