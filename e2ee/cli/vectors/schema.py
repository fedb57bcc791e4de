"""JSON schemas of the vector files, and the strict check against them.

Owns: the few keywords of JSON Schema (draft 2020-12) that the vectors need: fragments in, a verdict out.
Does not know about: what the fields mean. Every object refuses keys that it does not name.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

MAX_U32: Final = (1 << 32) - 1
MAX_TIMESTAMP: Final = (1 << 63) - 1


class SchemaError(Exception):
    """A document does not fit its schema; the text names the place."""


def hex_bytes(length: int | None = None, description: str = "") -> Schema:
    """Bytes in lower-case hex, of one length or of any."""
    pattern = "^([0-9a-f]{2})*$" if length is None else f"^[0-9a-f]{{{2 * length}}}$"
    return _described({"type": "string", "pattern": pattern}, description)


def integer(maximum: int = MAX_U32, description: str = "") -> Schema:
    """An integer from 0 to `maximum`. Those above 2^53 need a reader that keeps all digits."""
    return _described({"type": "integer", "minimum": 0, "maximum": maximum}, description)


def timestamp(description: str = "Unix milliseconds") -> Schema:
    return integer(MAX_TIMESTAMP, description)


def text(description: str = "") -> Schema:
    return _described({"type": "string"}, description)


def constant(value: str) -> Schema:
    return {"const": value}


def one_of(*values: str | int) -> Schema:
    return {"enum": list(values)}


def array(items: Schema, minimum: int = 0, description: str = "") -> Schema:
    return _described({"type": "array", "items": items, "minItems": minimum}, description)


def record(optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object with these keys and no others; those in `optional` may be absent."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def either(*alternatives: Schema) -> Schema:
    return {"oneOf": list(alternatives)}


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


def check(schema: Schema, value: object, path: str = "$") -> None:
    """Check a value.

    Raises:
        SchemaError: it does not fit.
    """
    if "oneOf" in schema:
        _check_either(schema["oneOf"], value, path)
    elif "const" in schema:
        _require(value == schema["const"], path, f"is not {schema['const']!r}")
    elif "enum" in schema:
        _require(type(value) in (str, int) and value in schema["enum"], path, f"is none of {schema['enum']}")
    else:
        _CHECKS[schema["type"]](schema, value, path)


def _check_either(alternatives: list[Schema], value: object, path: str) -> None:
    candidates = [each for each in alternatives if _constants_fit(each, value)]
    # Constants (the type of a group, the result of a test) tell alternatives apart; so the message can be about one.
    _require(len(candidates) == 1, path, "fits none of the alternatives")
    check(candidates[0], value, path)


def _constants_fit(schema: Schema, value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    constants = {name: each["const"] for name, each in schema["properties"].items() if "const" in each}
    return all(name in value and value[name] == constant for name, constant in constants.items())


def _check_object(schema: Schema, value: object, path: str) -> None:
    if not isinstance(value, dict):
        raise SchemaError(f"{path} is not an object")
    properties: dict[str, Schema] = schema.get("properties", {})
    rest: Schema | bool = schema.get("additionalProperties", False)
    for name in schema.get("required", ()):
        _require(name in value, path, f"lacks the key {name!r}")
    for name, each in value.items():
        if name in properties:
            check(properties[name], each, f"{path}.{name}")
        elif isinstance(rest, dict):
            check(rest, each, f"{path}.{name}")
        else:
            raise SchemaError(f"{path} has the unknown key {name!r}")


def _check_array(schema: Schema, value: object, path: str) -> None:
    if not isinstance(value, list):
        raise SchemaError(f"{path} is not an array")
    _require(len(value) >= schema.get("minItems", 0), path, "has too few items")
    for at, each in enumerate(value):
        check(schema["items"], each, f"{path}[{at}]")


def _check_string(schema: Schema, value: object, path: str) -> None:
    if not isinstance(value, str):
        raise SchemaError(f"{path} is not a string")
    pattern = schema.get("pattern")
    # `fullmatch`, because `$` also matches before a line break at the end.
    _require(pattern is None or re.fullmatch(pattern, value) is not None, path, f"does not match {pattern}")


def _check_integer(schema: Schema, value: object, path: str) -> None:
    if type(value) is not int:
        raise SchemaError(f"{path} is not an integer")
    _require(schema["minimum"] <= value <= schema["maximum"], path, "is out of range")


def _require(fits: bool, path: str, problem: str) -> None:
    if not fits:
        raise SchemaError(f"{path} {problem}")


_CHECKS: Final = {
    "object": _check_object,
    "array": _check_array,
    "string": _check_string,
    "integer": _check_integer,
}
