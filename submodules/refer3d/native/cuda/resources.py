"""Registers and memory that compiled kernels take, read from their code: no GPU is needed."""

from __future__ import annotations

import struct
from typing import NamedTuple

FRAME_SIZE, REGISTERS = 0x11, 0x2F
"""Attributes of a kernel in the section .nv.info; each is a symbol's number and a value."""
SIZED = 4
"""Format of such attributes; others are of four bytes."""


class Resources(NamedTuple):
    """Resources of one kernel."""

    registers: int
    """Registers of each thread."""
    local: int
    """Bytes of each thread in local memory: spilled registers, and arrays that are not unrolled."""
    shared: int
    """Bytes of each block; from sm_90 on, where there are any, with the system's kilobyte."""

    def blocks(self, threads: int) -> int:
        """Blocks that fit on a multiprocessor at once, of sm_90 and sm_100."""
        registers = -(-self.registers // 8) * 8 * threads
        shared = max(self.shared, 1024)
        return min(2048 // threads, 65536 // registers, 233472 // shared, 32)


def read_resources(code: bytes) -> dict[str, Resources]:
    """The kernels of a cubin, by their names."""
    sections = _sections(code)
    symbols, names = sections[".symtab"], sections[".strtab"]
    values: dict[int, dict[str, int]] = {REGISTERS: {}, FRAME_SIZE: {}}
    attributes, at = sections[".nv.info"], 0
    while at < len(attributes):
        form, attribute, size = struct.unpack_from("<BBH", attributes, at)
        at += 4
        if form == SIZED:
            if attribute in values:
                symbol, value = struct.unpack_from("<II", attributes, at)
                (place,) = struct.unpack_from("<I", symbols, 24 * symbol)
                values[attribute][_text(names, place)] = value
            at += size
    return {
        name: Resources(count, values[FRAME_SIZE].get(name, 0), _shared(sections, name))
        for name, count in values[REGISTERS].items()
    }


def _shared(sections: dict[str, memoryview], kernel: str) -> int:
    return len(sections.get(f".nv.shared.{kernel}", b""))


def _sections(code: bytes) -> dict[str, memoryview]:
    """An ELF file's sections. Those without contents, as shared memory, are as long as they say."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, count, of_names = struct.unpack_from("<HHH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", code, table + i * size) for i in range(count)]
    names = code[headers[of_names][4] :]
    return {
        _text(names, name): memoryview(code[start : start + length].ljust(length, b"\0"))
        for name, _, _, _, start, length in headers
    }


def _text(names: bytes | memoryview, place: int) -> str:
    return bytes(names[place:]).split(b"\0", 1)[0].decode()
