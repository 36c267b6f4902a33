"""Packages and CPU ops of refer3d; everything else stands in pyproject.toml.

The ops are plain C++ bound with pybind11: no torch headers, so they build in seconds and fit every
torch. Each package's ops are built several times from the same sources, for different instruction
sets; ``refer3d.native`` loads the best one that the machine can run. A build that fails leaves a
working install: the reason goes into ``<package>/native_build.txt`` and so reaches the user.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NATIVE_PACKAGES = ["refersplat", "detailbase"]
SHARED_PACKAGES = find_packages("submodules", include=["refer3d*"])
SHARED = "submodules/refer3d/native/csrc"
"""Folder of sources that are built into the ops of every package."""
REPORT = "native_build.txt"
SANITIZE = os.environ.get("REFER3D_SANITIZE", "")
"""Sanitizers of GCC or Clang to build with, as ``address,undefined``."""

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
UNIX_FLAGS = {
    "base": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": [
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"),
        "-mprefer-vector-width=512",
    ],
}
MSVC_FLAGS = {"base": [], "avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"]}
# math-errno and trapping-math only keep loops from being vectorised: nothing here reads errno or
# floating-point traps. Results stay IEEE, NaN and infinity included.
UNIX_COMMON = [
    *("-O3", "-std=c++17", "-DNDEBUG", "-g0", "-fvisibility=hidden"),
    *("-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
]
MSVC_COMMON = ["/O2", "/std:c++17", "/EHsc", "/DNDEBUG", "/D_USE_MATH_DEFINES", "/DNOMINMAX"]


def extensions(package: str) -> list[Extension]:
    """One extension for each instruction set that this kind of machine may have."""
    folders = [f"{package}/csrc", SHARED]
    sources = sorted(str(path) for folder in folders for path in Path(folder).glob("*.cpp"))
    headers = [str(path) for folder in folders for path in Path(folder).glob("*.h")]
    variants = list(UNIX_FLAGS) if IS_X86 else ["base"]
    return [
        Extension(
            f"{package}._cpu_{variant}",
            sources=sources,
            depends=headers,
            include_dirs=folders,
            define_macros=[("REFER_MODULE_NAME", f"_cpu_{variant}")],
            language="c++",
            optional=True,
        )
        for variant in variants
    ]


class BuildNative(build_ext):
    """Compiles all objects of all variants in parallel; reports failures instead of raising."""

    def run(self) -> None:
        """Builds every variant that can be built, and writes a report of the others."""
        self.failures: dict[str, str] = {}
        try:
            super().run()
        except Exception as error:  # whatever the compiler's set-up raises: the install goes on
            for extension in self.extensions:
                self.failures.setdefault(extension.name, f"no C++ compiler found ({error})")
        self.write_reports()

    def build_extensions(self) -> None:
        """Compiles the objects in parallel, then links each variant."""
        try:
            import pybind11
        except ImportError:
            reason = "pybind11 is not installed (it is only needed to build)"
            self.failures.update({extension.name: reason for extension in self.extensions})
            return
        self.is_msvc = self.compiler.compiler_type == "msvc"
        if not self.is_msvc:
            # Old and new setuptools call it differently.
            self.compiler.spawn = self.compiler.call = run_and_keep_errors
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = {
                extension.name: [
                    pool.submit(self.compile_object, extension, source, pybind11.get_include())
                    for source in extension.sources
                ]
                for extension in self.extensions
            }
            for extension in self.extensions:
                try:
                    self.link(extension, objects[extension.name])
                except Exception as error:  # reported by write_reports; other variants may do
                    self.failures[extension.name] = str(error)

    def compile_object(self, extension: Extension, source: str, pybind11_headers: str) -> str:
        """Compiles one source file of one variant and returns the object's path."""
        variant = extension.name.rpartition("_")[2]
        flags = MSVC_COMMON + MSVC_FLAGS[variant] if self.is_msvc else unix_flags(variant)
        if source.endswith("bindings.cpp") and not self.is_msvc:
            flags.append("-O1")  # it only passes arguments on, and takes the longest
        (path,) = self.compiler.compile(
            [source],
            output_dir=os.path.join(self.build_temp, extension.name),
            macros=extension.define_macros,
            include_dirs=[*extension.include_dirs, pybind11_headers],
            extra_postargs=flags,
        )
        return path

    def link(self, extension: Extension, objects: list[Future[str]]) -> None:
        """Waits for a variant's objects and links them."""
        self.compiler.link_shared_object(
            [future.result() for future in objects],
            self.get_ext_fullpath(extension.name),
            library_dirs=self.library_dirs,
            libraries=self.get_libraries(extension),
            extra_postargs=[] if self.is_msvc else link_flags(),
            target_lang="c++",
        )

    def write_reports(self) -> None:
        """Writes each package's failures into it, in place of an earlier build's."""
        for package in NATIVE_PACKAGES:
            folder = Path(package) if self.inplace else Path(self.build_lib, package)
            folder.mkdir(parents=True, exist_ok=True)
            report = folder / REPORT
            report.unlink(missing_ok=True)
            variants: dict[str, list[str]] = {}
            for name, reason in self.failures.items():
                if name.startswith(f"{package}."):
                    Path(self.get_ext_fullpath(name)).unlink(missing_ok=True)
                    variants.setdefault(reason, []).append(name.rpartition("_")[2])
            lines = [f"{reason} ({', '.join(names)})" for reason, names in variants.items()]
            if lines:
                report.write_text("\n".join(lines) + "\n", encoding="utf-8")
                print(f"refer3d: not every C++ op of {package} was built:", *lines, sep="\n  ")
        if self.failures and os.environ.get("REFER3D_STRICT") == "1":
            raise RuntimeError(f"REFER3D_STRICT=1 and ops were not built: {self.failures}")


def unix_flags(variant: str) -> list[str]:
    """Flags for GCC and Clang; ``-mprefer-vector-width`` is understood by both."""
    return [*UNIX_COMMON, "-pthread", *UNIX_FLAGS[variant], *sanitizer_flags()]


def link_flags() -> list[str]:
    """Flags for the linker; a sanitizer's report needs the symbols that ``-s`` strips."""
    if SANITIZE:
        return ["-pthread", *sanitizer_flags()]
    return [] if sys.platform == "darwin" else ["-pthread", "-s"]


def sanitizer_flags() -> list[str]:
    """Flags that come last, so that a finding ends the process and names its line."""
    names = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-g1", "-O1"]
    return names if SANITIZE else []


def run_and_keep_errors(command: list[str], **_: object) -> None:
    """Runs the compiler; the error of a failure has the compiler's own messages."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise RuntimeError(f"no C++ compiler found: {command[0]}: {error.strerror}") from error
    sys.stderr.write(result.stderr)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or [result.stderr]
        raise RuntimeError(f"{command[0]} failed: {' / '.join(lines[:3]).strip()[:600]}")


setup(
    packages=[*find_packages(include=["refersplat*", "detailbase*"]), *SHARED_PACKAGES],
    package_dir={"refer3d": "submodules/refer3d"},
    package_data={
        **{
            name: ["csrc/*.h", "csrc/*.cpp", "csrc/*.cu"]
            for name in (*NATIVE_PACKAGES, "refer3d.native")
        },
        "": ["py.typed"],
        "detailbase.inference": ["demo/*"],
        "refer3d.language": ["kinds.txt.gz", "kinds.LICENSE"],
    },
    ext_modules=[extension for package in NATIVE_PACKAGES for extension in extensions(package)],
    cmdclass={"build_ext": BuildNative},
)
