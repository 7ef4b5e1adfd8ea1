"""Remove passwords, signatures and keys from paths and messages before they are shown or stored.

Maps, logs and terminal output must not reveal the credentials with which a scene was fetched.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePath

_HIDDEN = "..."
_SHORTEST_SECRET = 8  # shorter values of variables are words such as `auto`
_LONGEST_TEXT = 1 << 16
"""Number of characters of a message that are kept; the patterns take up to 2 s for that many."""

# Quotes and brackets end a URL, since messages enclose URLs in them. The length of the scheme is
# limited: without a limit, a name of 100,000 characters took 105 s.
_URL = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s/'"<>@]*@)?(?P<rest>[^\s?#'"<>()]*)"""
    r"""(?P<query>[?#][^\s'"<>()]*?(?=[:.,;]*(?:[\s'"<>()]|$)))?""",
    re.IGNORECASE,
)
# GDAL's syntax: /vsicurl?header.Authorization=...&url=https%3A%2F%2F...
_GDAL_URL = re.compile(r"""(?P<handler>/vsi[a-z0-9_]+)\?[^\s'"<>()]*?(?=[:.,;]*(?:[\s'"<>()]|$))""")
# The query after a file name, where a message quotes the name alone.
_QUERY = re.compile(r"""(?P<name>\.[a-z0-9]{2,5})\?[^\s'"<>()]*=[^\s'"<>():.,;]*""", re.IGNORECASE)
_KEYWORDS = re.compile(
    r"""(?P<key>\b(?:sig|signature|token|password|passwd|pwd|secret|apikey|api_key|access_key"""
    r"""|authorization|x-amz-[a-z-]{1,60}|awsaccesskeyid)\b\s*[=:]\s*)(?:(?:bearer|basic)\s+)?"""
    r"""[^\s&'"<>(),;]+""",
    re.IGNORECASE,
)
_AWS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCESS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "GDAL_HTTP_BEARER",
    "GDAL_HTTP_HEADERS",
    "GDAL_HTTP_PROXYUSERPWD",
    "GDAL_HTTP_USERPWD",
    "GS_ACCESS_KEY_ID",
    "GS_OAUTH2_REFRESH_TOKEN",
    "GS_SECRET_ACCESS_KEY",
    "OSS_SECRET_ACCESS_KEY",
    "SWIFT_AUTH_TOKEN",
    "SWIFT_KEY",
)


def redact_path(path: str | os.PathLike[str]) -> str:
    """A path to show: a URL without user, password, query and fragment.

    Local paths are returned unchanged, including question marks.
    """
    name = os.fspath(path)
    return redact(name) if name.startswith("/vsi") or "://" in name else name


def redact_name(path: str | os.PathLike[str]) -> str:
    """The last part of a redacted path, such as `ortho.tif`."""
    if isinstance(path, PurePath):
        return path.name
    return redact_path(path).rstrip("/").rpartition("/")[2]


def redact(text: str) -> str:
    """A message without the secrets of URLs and of environment variables.

    The middle of a message of more than 65,536 characters is left out.
    """
    for name in _ENVIRONMENT:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _HIDDEN)
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        # Start the second half at a word: a URL without its start would not be recognized.
        text = f"{text[:half]}{_HIDDEN} {text[-half:].partition(' ')[2]}"
    text = _GDAL_URL.sub(rf"\g<handler>?{_HIDDEN}", text)
    text = _URL.sub(r"\g<scheme>\g<rest>", text)
    text = _QUERY.sub(r"\g<name>", text)
    text = _KEYWORDS.sub(rf"\g<key>{_HIDDEN}", text)
    return _AWS_KEY.sub(_HIDDEN, text)
