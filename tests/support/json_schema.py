"""A validator for the part of JSON Schema that `events.schema.json` uses."""

from __future__ import annotations

from typing import Any

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """What contradicts the schema, each with its place; a keyword not known here is an error."""
    found = []
    for keyword in schema.keys() - _ANNOTATIONS:
        wanted = schema[keyword]
        if keyword == "$ref":
            found += faults(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, at)
        elif keyword == "oneOf":
            tried = [faults(value, option, root, at) for option in wanted]
            if sum(not these for these in tried) != 1:
                found.append(f"{at}: fits {sum(not t for t in tried)} of {len(tried)}: {tried}")
        elif keyword == "properties":
            for name in wanted.keys() & _members(value):
                found += faults(value[name], wanted[name], root, f"{at}.{name}")
        elif keyword == "items" and isinstance(value, list):
            for index, item in enumerate(value):
                found += faults(item, wanted, root, f"{at}[{index}]")
        elif not _holds(keyword, wanted, value, schema):
            found.append(f"{at}: {value!r} is against {keyword} {wanted}")
    return found


def _holds(keyword: str, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    length = len(value) if isinstance(value, list) else None
    if keyword == "type":
        return any(_is(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted))
    checks = {
        "items": lambda: True,
        "const": lambda: value == wanted,
        "enum": lambda: value in wanted,
        "required": lambda: not isinstance(value, dict) or set(wanted) <= value.keys(),
        "additionalProperties": lambda: _members(value) <= schema["properties"].keys(),
        "minimum": lambda: not is_number or value >= wanted,
        "maximum": lambda: not is_number or value <= wanted,
        "minItems": lambda: length is None or length >= wanted,
        "maxItems": lambda: length is None or length <= wanted,
    }
    return checks[keyword]()


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _members(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()
