#!/usr/bin/env bash
# Lint and all tests, on a fresh clone too: bash scripts/check.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv dev

echo "ruff"
ruff check .
ruff format --check .
echo "clang-format"
git ls-files -z '*.h' '*.cpp' '*.cu' | xargs -0 clang-format --dry-run -Werror
echo "pytest"
python -m pytest -q --durations=10 "$@"
