"""Answer a sample of points from the building polygons, in place of an interpreter.

Points on roofs of unknown material, or of clay tiles, stay open.

    python sample_data/answer_points.py points.gpkg
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import geopandas

LABELS = Path(__file__).resolve().parent / "banepa_buildings.geojson"
KNOWN = ("concrete", "tin")


def main() -> None:
    """Fill in the column `reference`."""
    path = Path(sys.argv[1])
    answers = found_at(geopandas.read_file(path, layer=path.stem))
    write(path, answers)
    print(f"{path}: answered {len(answers)} points")


def found_at(points: geopandas.GeoDataFrame) -> dict[int, str]:
    """The class of the polygons at each point, by its number."""
    roofs = geopandas.read_file(LABELS)[["roof", "geometry"]].to_crs(points.crs)
    # Of overlapping buildings the later one counts, as in an evaluation by labels.
    joined = points[["point_id", "geometry"]].sjoin(roofs, how="left").sort_values("index_right")
    last = joined.drop_duplicates("point_id", keep="last").set_index("point_id")
    bare = last["index_right"].isna()
    answers = last["roof"].where(~bare, "background")
    return answers[answers.isin([*KNOWN, "background"])].to_dict()


def write(path: Path, answers: dict[int, str]) -> None:
    """Into the layer; its triggers call functions that SQLite alone does not have."""
    layer = path.stem
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    with closing(sqlite3.connect(path)) as database, database:
        triggers = database.execute(query, (layer,)).fetchall()
        for name, _ in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.executemany(
            f'UPDATE "{layer}" SET reference = ? WHERE point_id = ?',  # noqa: S608 (our own file)
            [(answer, number) for number, answer in answers.items()],
        )
        for _, statement in triggers:
            database.execute(statement)


if __name__ == "__main__":
    main()
