"""Random damage to inputs, as a pure function of a seed; and the inputs that it starts from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import yaml

NUMBER = re.compile(rb"[0-9]+")
# what breaks readers: limits of integers and floats, other notations, keys and types that should not be there
HOSTILE = (
    b"", b"\0", b"\n", b"\r", b'"', b"'", b"\\", b",", b";", b"\t", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\xa7\xa0",
    b"-1", b"0", b"00", b"1e999", b"-1e-999", b"NaN", b"inf", b"9" * 400, b"18446744073709551616", b"true", b"null",
    b"[", b"]", b"{", b"}", b"[" * 200, b'{"a":' * 200, b": ", b"- ", b"&a ", b"*a", b"!!python/name:os.system ",
    b"<<: ", b"?", b"|", b"%YAML 9.9\n", b"---\n", b"_target_", b"$(x)", b"../../x", b"/", b"~", b"=cmd()", b"a" * 5000,
)  # fmt: skip


def mutated(data: bytes, rng: np.random.Generator, hostile: Sequence[bytes] = HOSTILE) -> bytes:
    """``data`` after one or more random edits, mostly one."""
    for _ in range(int(rng.geometric(0.6))):
        data = _edited(data, int(rng.integers(0, 9)), rng, hostile)
    return data


def flipped(data: bytes, position: int, bit: int) -> bytes:
    """``data`` with one bit the other way round."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def _edited(data: bytes, kind: int, rng: np.random.Generator, hostile: Sequence[bytes]) -> bytes:
    if not data:
        return hostile[int(rng.integers(len(hostile)))]
    at, other = (int(place) for place in rng.integers(0, len(data), 2))
    length = int(rng.integers(1, 1 + min(len(data), 40)))
    token = hostile[int(rng.integers(len(hostile)))]
    if kind == 0:
        return flipped(data, at, int(rng.integers(8)))
    if kind == 1:
        return data[:at] + rng.bytes(length) + data[at + length :]
    if kind == 2:
        return data[:at] + data[at + length :]
    if kind == 3:
        return data[:at] + data[other : other + length] + data[at:]
    if kind == 4:
        return data[:at] + data[other : other + length] + data[at + length :]
    if kind == 5:
        return data[:at]
    if kind == 6 and (numbers := list(NUMBER.finditer(data))):
        found = numbers[int(rng.integers(len(numbers)))]
        return data[: found.start()] + token + data[found.end() :]
    if kind == 7:
        return data[:at] + token + data[at + length :]
    return data[:at] + token + data[at:]


def reshaped(value: object, rng: np.random.Generator) -> object:
    """A JSON value with one part replaced by a value of another type or size; the syntax stays right."""
    replacements: tuple[object, ...] = (None, True, -1, 2**70, 1e308, "", "x" * 300, [], {}, [[]], {"a": 1}, "../x")
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[int(rng.integers(len(value)))]
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key} | {"unknown": 1}
        return {**value, key: reshaped(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = int(rng.integers(len(value)))
        return [*value[:index], reshaped(value[index], rng), *value[index + 1 :]]
    return replacements[int(rng.integers(len(replacements)))]


def mutated_yaml(text: bytes, rng: np.random.Generator) -> bytes:
    """YAML that is damaged as text, or sound YAML that says something else."""
    if rng.random() < 0.5:
        return mutated(text, rng)
    value = reshaped(yaml.safe_load(text), rng)
    return yaml.safe_dump(value, sort_keys=False).encode()


def mutated_table(text: bytes, rng: np.random.Generator) -> bytes:
    """A table that is damaged as text, or one with one other cell."""
    if rng.random() < 0.5:
        return mutated(text, rng)
    rows = [line.split(b",") for line in text.splitlines()]
    row = rows[int(rng.integers(len(rows)))]
    column = int(rng.integers(len(row)))
    other = rows[int(rng.integers(len(rows)))][int(rng.integers(len(row)))]
    row[column] = other if rng.random() < 0.3 else mutated(row[column], rng)
    return b"\n".join(map(b",".join, rows)) + b"\n"


def mutated_header(header: bytes, rng: np.random.Generator) -> bytes:
    """A binary header of the same length, damaged anywhere, or with one other number in it."""
    if rng.random() < 0.3:
        return mutated(header, rng)[: len(header)].ljust(len(header), b"\0")
    width = int(rng.choice([1, 2, 4, 8]))
    place = width * int(rng.integers(len(header) // width))
    floats = (0.0, -1.0, 1e-38, 1e38, np.nan, np.inf, 0.5, 1.5, 1e9)
    numbers = (0, 1, -1, 2 ** (4 * width - 1), 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1)), 3, 4, 8, 16, 64)
    if width >= 4 and rng.random() < 0.5:
        value = np.array(floats[int(rng.integers(len(floats)))], f"<f{width}").tobytes()
    else:
        value = numbers[int(rng.integers(len(numbers)))].to_bytes(width, "little", signed=True)
    return header[:place] + value + header[place + width :]


def mutated_json(value: object, rng: np.random.Generator) -> bytes:
    """JSON that is damaged as text, or sound JSON that says something else."""
    if rng.random() < 0.5:
        return mutated(json.dumps(value).encode(), rng)
    return json.dumps(reshaped(value, rng)).encode()
