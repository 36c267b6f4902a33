"""Reads mutated files by every public reader, and counts what becomes of them.

python -m benchmarks.mutations --count 20000 --seconds 120

Each file is read in a forked process that may take 10 s of CPU and 2 GiB more than before. It is
read, or refused with one line that names its folder; everything else is a fault.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter, defaultdict
from contextlib import suppress
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.readers import READERS, Reader
from refer3d.runs.errors import InputError
from tests.mutations import TENSORS, VALUES, mutated, places

SECONDS, ASLEEP, MEMORY = 10, 300, 2 << 30
"""CPU time and time in all of one file, and bytes beyond those after reading a whole one."""
CONTEXT = multiprocessing.get_context("fork")
LONGEST = 600
"""Characters of a refusal."""
OUTCOMES = ("read", "refused", "vague", "traceback", "memory", "hang", "crash")
"""What becomes of a file; a vague refusal has several lines, or does not say where."""
NUMBER = re.compile(rb"-?\d[\d.]*(?:e[+-]?\d+)?")
WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e400", b"1e300", b"-1", b"0", b"1e38", b"2147483648", b"1e-320"),
    *(b"99999999999999999999", b"9" * 5000, b"", b"x", b"\xc3\xbc", b"\xff", b"\0", b"1_0", b"0x1"),
)
"""Extremes in text."""
EXTREMES = [
    *(struct.pack("<i", value) for value in (-1, 0, 2**31 - 1, -(2**31))),
    *(struct.pack("<f", value) for value in (np.nan, np.inf, -np.inf, 1e38, 1e-40)),
    *(struct.pack("<q", value) for value in (-1, 2**63 - 1, 2**32, 2**40)),
    *(struct.pack("<d", value) for value in (np.nan, np.inf, 1e300, -1e300)),
]
"""Extremes in binary files."""


def edit(content: bytes, rng: random.Random) -> bytes:
    """Changes a file of any kind in one to three places."""
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        size = len(result)
        place, other = (rng.randrange(size + 1) for _ in range(2))
        first, last = min(place, other), max(place, other)
        kind = rng.choice(("flip", "cut", "insert", "drop", "repeat", "swap", "number", "word"))
        if kind == "flip" and size:
            for _ in range(rng.choice((1, 1, 8))):
                result[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del result[place:]
        elif kind == "insert":
            result[place:place] = rng.choice((rng.randbytes(rng.randrange(1, 9)), *WORDS))
        elif kind == "drop":
            del result[first : min(last, first + 64)]
        elif kind == "repeat":
            result[first:first] = result[first : first + 64] * rng.choice((1, 1, 1, 1000))
        elif kind == "swap":
            middle = (first + last) // 2
            result[first:last] = result[middle:last] + result[first:middle]
        elif kind == "number":
            value = rng.choice(EXTREMES)
            place = rng.choice((place, place & ~3, min(place, 64) & ~3))
            result[place : place + len(value)] = value
        elif spans := [match.span() for match in NUMBER.finditer(result, 0, 1 << 14)]:
            begin, end = rng.choice(spans)
            result[begin:end] = rng.choice(WORDS)
    return bytes(result)


def edit_json(content: bytes, rng: random.Random) -> bytes:
    """Replaces or drops a value of a JSON file; a quarter are edited as text."""
    if not rng.randrange(4):
        return edit(content, rng)
    state = json.loads(content)
    plain = [i for i, v in enumerate(VALUES) if not isinstance(v, bytes | torch.Tensor)]
    kind, parameter = rng.choice((("drop", 0), ("value", rng.choice(plain))))
    changed = mutated(state, rng.choice([*places(state)]), kind, parameter)
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(changed).encode()
    finally:
        sys.set_int_max_str_digits(4300)


def edit_state(content: bytes, rng: random.Random) -> bytes:
    """Replaces a tensor or value of a saved state; a quarter are edited as bytes."""
    if not rng.randrange(4):
        return edit(content, rng)
    state = torch.load(BytesIO(content), weights_only=False)
    values = ("value", rng.randrange(len(VALUES)))
    kind, parameter = rng.choice((("drop", 0), values, ("tensor", rng.choice([*TENSORS]))))
    place = rng.choice([*places(state)])
    file = BytesIO()
    try:
        torch.save(mutated(state, place, kind, parameter), file)
    except (TypeError, AttributeError, NotImplementedError, RuntimeError):
        return edit(content, rng)  # a tuple's item cannot be dropped, an integer cannot be NaN
    return file.getvalue()


def edit_gzip(content: bytes, rng: random.Random) -> bytes:
    """Edits what is compressed; a quarter are edited from outside."""
    if not rng.randrange(4):
        return edit(content, rng)
    return gzip.compress(edit(gzip.decompress(content), rng), compresslevel=1)


def edit_png(content: bytes, rng: random.Random) -> bytes:
    """Edits a chunk and its checksum; a quarter are edited as bytes."""
    if not rng.randrange(4):
        return edit(content, rng)
    chunks, place = [], 8
    while place < len(content):
        (size,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += size + 12
    index = rng.randrange(len(chunks))
    kind, data = chunks[index]
    if kind == b"IDAT" and rng.randrange(2):
        data = zlib.compress(edit(zlib.decompress(data), rng))
    else:
        data = edit(data, rng)
    chunks[index] = kind, data
    parts = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return content[:8] + b"".join(parts)


EDITS = {
    "bytes": edit,
    "json": edit_json,
    "state": edit_state,
    "gzip": edit_gzip,
    "png": edit_png,
}


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    """Reads a file; returns what became of it, and where a fault is."""
    try:
        reader.read(path)
    except InputError as error:
        text = str(error)
        if has_no_memory(error):
            return "memory", text
        is_line = "\n" not in text and len(text) <= LONGEST and path.parent.name in text
        return ("refused", "") if is_line else ("vague", text)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        lines = [f"{Path(f.filename).name}:{f.lineno}" for f in (frames[-1], own[-1])]
        text = f"{type(error).__name__} in {' from '.join(dict.fromkeys(lines))}: {error}"
        return "memory" if has_no_memory(error) else "traceback", text
    return "read", ""


def has_no_memory(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is that the process may take no more memory."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__
    return False


class Mutations:
    """The mutated files of a reader."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.name, self.seed, self.reader = name, seed, READERS[name]
        folder.mkdir()
        # Numba's threads, which some writers start, do not survive a fork.
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=lambda: theirs.send(self.reader.write(folder)))
        process.start()
        self.path = ours.recv()
        process.join()
        self.content = self.path.read_bytes()

    def write(self, number: int) -> None:
        """Writes a file; the same for the same seed, reader and number."""
        rng = random.Random(f"{self.seed} {self.name} {number}")
        self.path.write_bytes(EDITS[self.reader.kind](self.content, rng))

    def read(self, first: int, end: int, seconds: float, pipe: Connection) -> None:
        """Reads files from a number on, within the limits; sends what becomes of each."""
        self.path.write_bytes(self.content)
        self.reader.read(self.path)  # a whole file, which loads what the reader needs
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        start = time.process_time()
        for number in range(first, end):
            self.write(number)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, ASLEEP)
            result, text = outcome(self.reader, self.path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send((result, text))
            if time.process_time() - start > seconds:
                break

    def count(self, count: int, seconds: float) -> tuple[Counter[str], dict[str, list[int]], float]:
        """Reads files until there are enough or the time is over.

        Returns:
            counts: Number of each outcome.
            faults: The numbers of the files with each text.
            seconds: CPU time.
        """
        counts, faults, before = Counter(), defaultdict(list), child_seconds()
        while counts.total() < count and (used := child_seconds() - before) < seconds:
            number = counts.total()
            ours, theirs = CONTEXT.Pipe(duplex=False)
            todo = (number, count, seconds - used, theirs)
            process = CONTEXT.Process(target=self.read, args=todo)
            process.start()
            theirs.close()
            with suppress(EOFError):
                while True:
                    result, text = ours.recv()
                    counts[result] += 1
                    if text:
                        text = text.replace(str(self.path.parent), "")[:200]
                        faults[f"{result}: {text}"].append(number)
                    number += 1
            process.join()
            if process.exitcode:
                timers = (-signal.SIGALRM, -signal.SIGPROF)
                result = "hang" if process.exitcode in timers else "crash"
                counts[result] += 1
                faults[f"{result}: exit code {process.exitcode}"].append(number)
        return counts, faults, child_seconds() - before


def child_seconds() -> float:
    """CPU time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prints a table, and the faults with the numbers of their files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--count", type=int, default=20_000, help="files of each reader")
    parser.add_argument("--seconds", type=float, default=math.inf, help="CPU time of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, help="read only this file, and show its traceback")
    args = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    titles = ["reader", "files", *OUTCOMES, "ms"]
    print("|", " | ".join(titles), "|\n|", "---|" * len(titles), sep="")
    for name in args.readers or READERS:
        with tempfile.TemporaryDirectory() as folder:
            mutations = Mutations(name, Path(folder, "files"), args.seed)
            if args.show is not None:
                mutations.write(args.show)
                mutations.reader.read(mutations.path)
                return
            counts, faults, seconds = mutations.count(args.count, args.seconds)
        cells = [name, counts.total(), *(counts[o] for o in OUTCOMES)]
        speed = f"{seconds / counts.total() * 1000:.2g}"
        print("|", " | ".join(map(str, [*cells, speed])), "|", flush=True)
        for text, numbers in sorted(faults.items(), key=lambda item: -len(item[1])):
            print(f"    {len(numbers)} times, as file {numbers[0]}: {text}", flush=True)


if __name__ == "__main__":
    main()
