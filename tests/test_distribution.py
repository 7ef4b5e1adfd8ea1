"""What is passed on: a source archive that holds all files, and the licence of each dependency."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# hatchling adds these itself.
ADDED = {"pyproject.toml", ".gitignore", "PKG-INFO"}


def repository() -> set[str]:
    """Names on the top level of the repository, without what it ignores."""
    patterns = (ROOT / ".gitignore").read_text().split()
    ignored = [".git", *(pattern.strip("/") for pattern in patterns)]
    return {
        path.name
        for path in ROOT.iterdir()
        if not any(fnmatch(path.name, pattern) for pattern in ignored)
    }


def test_the_source_archive_holds_the_whole_repository():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert all(name.startswith("/") for name in included), "else folders of the name anywhere"
    assert {name[1:] for name in included} | ADDED >= repository()
    assert all((ROOT / name[1:]).exists() for name in included)


def test_the_files_that_the_makefile_names_are_there():
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\b(?:sample_data|tests)/[\w./-]*\w", text)) | {"constraints.txt"}
    assert len(named) > 5
    assert all((ROOT / name).exists() for name in named)


def names_of(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}


def test_the_licence_of_every_dependency_is_listed():
    page = (ROOT / "docs" / "licences.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.partition("## Dependencies")[2].splitlines()
        if line.startswith("| ") and not line.startswith(("| package", "| ---"))
    ]
    extras = PROJECT["project"]["optional-dependencies"]
    expected = {(name, None) for name in names_of(PROJECT["project"]["dependencies"])}
    for extra in extras.keys() - {"test", "check"}:
        expected |= {(name, extra) for name in names_of(extras[extra])}
    listed = [(row[0], row[1] if len(row) == 3 else None) for row in rows]
    assert sorted(listed, key=str) == sorted(expected, key=str)
    assert all(len(row[-1]) >= 3 for row in rows)


def test_only_commands_that_can_work_install_the_package():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    sources = [*pages, *(ROOT / "geodinoseg").rglob("*.py")]
    for path in sources:
        for words in re.findall(r"pip install ([^\n`]+)", path.read_text("utf-8")):
            # No index has the package itself: a folder or a wheel has to be named.
            named = re.findall(r"geodinoseg\S*", words)
            assert all(".whl" in name for name in named), f"{path}: {words}"
