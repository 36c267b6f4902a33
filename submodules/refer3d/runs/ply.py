"""PLY files that others wrote: headers of any program, colours of any name and type."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plyfile import PlyData, PlyParseError

from refer3d.runs.errors import InputError, reason
from refer3d.runs.files import decode_text, describe_content

LONGEST_HEADER = 1 << 20
"""Bytes in which a header must end."""
COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), tuple("rgb"))
"""Names of colour channels, in lower case."""
PACKED = ("rgb", "rgba")
"""Names of all channels in one number 0xAARRGGBB, as PCL writes."""
HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Names of a Gaussian's colour coefficients of degree 0."""
SH_0 = 0.28209479177387814
NEARLY_ONE = 1.01
"""Largest colour of a scale from 0 to 1: interpolation exceeds it a little."""
WIDE = 4095
"""Colours above it have 16 bits, whatever their type; a few above 255 are mistakes."""
DARKEST = 8
"""Least brightest colour of a cloud on a scale to 255."""


def read_ply(path: Path, remedy: str, known_list_len: Mapping[str, Any] | None = None) -> PlyData:
    """Reads a PLY file, ASCII or binary.

    Takes headers that plyfile refuses: comments in UTF-8 or Latin-1, ``obj_info`` behind an
    element, blanks behind a word, a byte order mark, and ASCII files in UTF-16.

    Args:
        path: The file.
        remedy: End of the message where it cannot be read.
        known_list_len: Lengths of lists, as plyfile takes them; such elements are mapped, not read.

    Raises:
        InputError: The file is absent, no PLY, or broken.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    options: dict[str, Any] = {"known_list_len": known_list_len} if known_list_len else {}
    try:
        with path.open("rb") as file:
            start = file.read(LONGEST_HEADER)
            if is_utf16 := start[:2] in (b"\xff\xfe", b"\xfe\xff"):
                start = decode_text(start + file.read()).encode()
            header, size = _clean_header(start)
            if not size:
                got = describe_content(start) or "no header of a PLY"
                raise InputError(f"{path}: expected a PLY file, got {got}; {remedy}")
            if header == start[:size] and not is_utf16:
                return PlyData.read(str(path), **options)
            with tempfile.TemporaryFile() as copy:  # its mapped arrays outlive it
                copy.write(header + start[size:])
                shutil.copyfileobj(file, copy)
                copy.seek(0)
                return PlyData.read(copy, **options)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except (PlyParseError, ValueError, TypeError, OverflowError, EOFError, MemoryError) as error:
        text = reason(error) + ", so it is cut short" * ("early end-of-file" in str(error))
        raise InputError(f"{path}: cannot be read as PLY ({text}); {remedy}") from error


def _clean_header(start: bytes) -> tuple[bytes, int]:
    """Returns the header as plyfile takes it, and its size in the file; 0 if there is none."""
    text = start.removeprefix(b"\xef\xbb\xbf")
    lines, size = [], len(start) - len(text)
    for line in text.splitlines(keepends=True) if text[:3] == b"ply" else ():
        words = line.split()
        size += len(line)
        if words and words[0] != b"obj_info":
            lines.append(decode_text(b" ".join(words)).encode("ascii", "backslashreplace"))
        if words == [b"end_header"]:
            newline = line[len(line.rstrip(b"\r\n")) :] or b"\n"
            if newline == b"\r\n" and b"\r\n" not in text[:8]:  # the body begins with a line feed
                newline, size = b"\r", size - 1
            return b"".join(line + newline for line in lines), size
    return b"", 0


def read_colors(
    vertices: np.ndarray,  # [P], structured
    path: Path,
    warnings: list[str],
) -> np.ndarray | None:  # [P, 3] uint8
    """Returns the colours of vertices; None without any.

    Integers encode 0 to 255, or to 65535 where they have two bytes or
    exceed 4095; floats 0 to 1, or the same as
    integers where they are whole numbers. Coefficients of Gaussians and colours packed into one
    number are unpacked.

    Raises:
        InputError: A colour is not finite or on none of these scales.
    """
    names = {name.lower(): name for name in vertices.dtype.names or ()}
    if set(HARMONICS) <= set(names) and not set(COLORS[0]) <= set(names):
        values = np.stack([vertices[names[n]] for n in HARMONICS], axis=1).astype(np.float64)
        return ((0.5 + SH_0 * values).clip(0, 1) * 255).round().astype(np.uint8)
    channels = next((channels for channels in COLORS if set(channels) <= set(names)), None)
    if channels is None:
        packed = next((names[name] for name in PACKED if name in names), None)
        if packed is None or vertices.dtype[packed].itemsize != 4:
            return None
        numbers = np.ascontiguousarray(vertices[packed])
        numbers = numbers.astype(numbers.dtype.newbyteorder("=")).view(np.uint32)
        return np.stack([numbers >> 16, numbers >> 8, numbers], axis=1).astype(np.uint8)
    try:
        columns = [np.asarray(vertices[names[name]]) for name in channels]
        values = np.stack(columns, axis=1).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: {', '.join(channels)} of its vertices must be single numbers, not lists; "
            "export it again"
        ) from error
    return _to_bytes(values, columns[0].dtype, path, warnings)


def _to_bytes(
    values: np.ndarray, dtype: np.dtype, path: Path, warnings: list[str]
) -> np.ndarray:  # [P, 3] -> [P, 3] uint8
    bad = ~(np.isfinite(values) & (values >= 0) & (values <= 65535)).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}: vertex {row}: its colour must be 0 to 255, or 0 to 1 in floating point, got "
            f"{values[row].tolist()}; export it with colours of 8 bits"
        )
    peak = values.max(initial=0)
    if dtype.kind == "f" and peak <= NEARLY_ONE:
        values = values.clip(max=1) * 255
    elif (peak > WIDE or (peak > 255 and dtype.itemsize == 2)) and not (values % 1).any():
        values = values / 257
    elif peak > 255 or (dtype.kind == "f" and peak < DARKEST):
        raise InputError(
            f"{path}: its colours reach up to {peak:g}, which is the end of no scale (1, 255 or "
            "65535); export it with colours of 8 bits"
        )
    elif 0 < peak <= 1:
        warnings.append(
            f"{path}: its colours are whole numbers up to 1 of 255, so it is black; if they were "
            "meant as 0 to 1, export it with floats or bytes"
        )
    return values.round().astype(np.uint8)
