#!/usr/bin/env bash
# Lint, types, documentation and all tests, also on a fresh clone: bash scripts/check.sh [pytest options]
# Tests run on all cores, one thread each, a file's tests one after another; -n 0 runs them in one process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv dev

echo "ruff"
ruff check .
ruff format --check .
echo "clang-format"
git ls-files -z '*.h' '*.cpp' '*.cu' | xargs -0 clang-format --dry-run -Werror
echo "pyright"
pyright
echo "documentation"
NO_MKDOCS_2_WARNING=1 mkdocs build --strict
echo "pytest"
OMP_NUM_THREADS=1 python -m pytest -q --durations=10 -n logical --maxprocesses 8 --dist loadfile "$@"
