"""Finds the files of a backbone in a folder or in the hub's cache, else fetches them from the hub.

A name whose files are in the cache needs no network. Otherwise the hub is queried once, with a
timeout of a few seconds and without the messages of its library.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from geodinoseg.errors import ModelError, one_line
from geodinoseg.model.parameters import check_backbone_source
from geodinoseg.model.quantization import quiet_libraries

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RGB_FILE = "preprocessor_config.json"
_INDEX_FILE = "model.safetensors.index.json"
"""Lists the files of weights that are split into several."""

_ASK_S = 5.0
"""Timeout of each step of the first request; without it the library tries for half a minute."""
_ANSWER_S = 10.0
"""Timeout of the whole request, since waiting for a name server counts in no step."""
_TRANSPORT = cast("type[Exception]", HfHubHTTPError.__bases__[0])
"""Base class of the errors of the library's HTTP client, httpx or httpx2."""


def backbone_folder(
    source: str | Path, *, revision: str | None = None, weights: bool = True
) -> Path:
    """The folder with the files of a backbone; they are fetched if they are not in the cache.

    Args:
        source: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub; its main branch by default.
        weights: whether the weights are needed, or only the configuration.

    Returns:
        The folder itself, or the snapshot of a commit in the hub's cache, whose name is the commit.

    Raises:
        ModelError: the folder does not exist, or the hub has no such files or cannot be reached.
    """
    check_backbone_source(source, revision=revision)
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    found = _cached(name, revision, weights=weights)
    if found is None:
        _fetch(name, revision, weights=weights)
        found = _cached(name, revision, weights=weights)
    if found is None:
        what = f"{CONFIG_FILE} and {WEIGHTS_FILE}" if weights else CONFIG_FILE
        raise ModelError(
            f"backbone {name}: the hub has no {what} of it; give --backbone a folder that holds "
            f"them, or another name."
        )
    return found


def published_commit(source: str | Path, revision: str | None) -> str | None:
    """The commit of a backbone that was just loaded from the hub; None for a folder."""
    if Path(source).is_dir():
        return None
    return backbone_folder(source, revision=revision, weights=False).name


def _cached(name: str, revision: str | None, *, weights: bool) -> Path | None:
    """The snapshot of a commit; None unless the cache holds all files that are needed."""
    try:
        config = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    except ValueError as error:
        raise ModelError(
            f"backbone {name}: is neither a folder nor a name on the hub, such as "
            f"facebook/dinov2-base ({one_line(error)[:160]})."
        ) from error
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if not weights or _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    if (folder / WEIGHTS_FILE).is_file():
        return True
    parts = _parts_of(folder / _INDEX_FILE)
    return bool(parts) and all((folder / part).is_file() for part in parts)


def _parts_of(index: Path) -> set[str]:
    """Names of the files of weights in an index; empty if it is missing or damaged."""
    try:
        return set(map(str, json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()


def _fetch(name: str, revision: str | None, *, weights: bool) -> None:
    """Fetch the files that are needed into the cache."""
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(
            name,
            "HF_HUB_OFFLINE forbids access to the hub",
            "Unset it on a machine with a network",
        )
    try:
        there = {entry.rfilename for entry in _asked(name, revision).siblings or []}
        logger.info("backbone %s: fetching it from the hub into %s.", name, constants.HF_HUB_CACHE)
        with quiet_libraries():
            for file in _needed(name, revision, there, weights=weights):
                _download(name, file, revision)
    except RevisionNotFoundError as error:
        raise ModelError(
            f"backbone {name}: has no revision {revision!r} on the hub; give a branch, tag or "
            f"commit that exists there."
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise ModelError(
            f"backbone {name}: is not a folder, and the hub has no model of that name that you "
            f"have access to; correct the name, or log in with 'hf auth login' if it is private."
        ) from error
    except (OSError, ValueError, _TRANSPORT) as error:
        raise _unavailable(
            name,
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})",
            f"Fetch it on a machine with a network (hf download {name}), after which "
            f"HF_HUB_OFFLINE=1 prevents requests",
        ) from error


def _asked(name: str, revision: str | None) -> ModelInfo:
    """Query the hub for the information on a model, with a timeout of seconds."""
    answers: queue.SimpleQueue[ModelInfo | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            api = HfApi(endpoint=constants.ENDPOINT)
            answers.put(api.model_info(name, revision=revision, timeout=_ASK_S))
        except Exception as error:  # noqa: BLE001 (raised again below)
            answers.put(error)

    # A daemon, so that the process does not wait for it at exit.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_S)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _needed(name: str, revision: str | None, there: set[str], *, weights: bool) -> Iterable[str]:
    """The files to fetch, out of those that are on the hub."""
    wanted = [CONFIG_FILE, RGB_FILE]
    if weights and WEIGHTS_FILE in there:
        wanted.append(WEIGHTS_FILE)
    elif weights and _INDEX_FILE in there:
        wanted += sorted(_parts_of(_download(name, _INDEX_FILE, revision)))
    return [file for file in wanted if file in there]


def _download(name: str, file: str, revision: str | None) -> Path:
    return Path(
        hf_hub_download(
            name, file, revision=revision, etag_timeout=_ASK_S, endpoint=constants.ENDPOINT
        )
    )


def _unavailable(name: str, why: str, what_to_do: str) -> ModelError:
    return ModelError(
        f"backbone {name}: is not in the hub's cache, {constants.HF_HUB_CACHE} (set HF_HOME to "
        f"use another), and {why}. {what_to_do}, or give --backbone a folder that holds "
        f"{CONFIG_FILE} and {WEIGHTS_FILE}."
    )
