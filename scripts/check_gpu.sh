#!/usr/bin/env bash
# On a machine with a GPU: all tests on it, a check of the kernels' memory where compute-sanitizer is
# installed, and the benchmarks: bash scripts/check_gpu.sh [garden.npz [scene folder]]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv dev

if ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch sees no GPU here; nothing was checked" >&2
  exit 1
fi
# A kernel that cannot be had is an error here, not a reason for the reference.
export REFER3D_STRICT=1

echo "pytest"
python -m pytest -q --durations=10
if command -v compute-sanitizer > /dev/null; then
  echo "compute-sanitizer"
  for tool in memcheck racecheck synccheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 python -m pytest -q -p no:cacheprovider \
      tests/refersplat/test_project.py tests/refersplat/test_rasterize.py \
      tests/refersplat/test_knn.py tests/detailbase/test_kernel_map.py \
      tests/detailbase/test_sparse_conv.py tests/detailbase/test_segment_reduce.py \
      -k "cuda and matches_reference"
  done
else
  echo "compute-sanitizer is not installed: the kernels' memory was not checked"
fi
if [[ $# -gt 0 ]]; then
  mkdir -p output
  python benchmarks/gpu.py --input "$1" ${2:+--scene "$2"} --json output/gpu.json
else
  echo "no garden.npz was named: nothing was timed"
fi
