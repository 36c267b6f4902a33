#!/usr/bin/env bash
# On a machine with a GPU: runs all tests, checks the kernels' memory (if compute-sanitizer is installed), and
# runs the benchmarks: bash scripts/check_gpu.sh [garden.npz [scene folder]]
#
#   REFER3D_PYTHON   Python with torch and the other dependencies, instead of .venv: the ops are built in
#                    place for it, and nothing is installed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
if [[ -n "${REFER3D_PYTHON:-}" ]]; then
  python() { command "$REFER3D_PYTHON" "$@"; }
  export PYTHONPATH="$PWD:$PWD/submodules${PYTHONPATH:+:$PYTHONPATH}"
  python setup.py --quiet build_ext --inplace
else
  use_venv dev
fi

if ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch sees no GPU: nothing was checked" >&2
  exit 1
fi
# A missing kernel is an error here; the reference would hide it.
export REFER3D_STRICT=1

failed=0  # a failure must not keep the rest from being measured
echo "pytest"
python -m pytest -q --durations=10 || failed=1
if command -v compute-sanitizer > /dev/null; then
  echo "compute-sanitizer"
  # Without torch's cache each tensor has its own allocation, so that a write beyond it is seen.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck synccheck; do
    # Packages query optional functions of the driver; their absence is no error.
    compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 1 \
      "${REFER3D_PYTHON:-python}" -m pytest -q -p no:cacheprovider \
      tests/refersplat/test_project.py tests/refersplat/test_rasterize.py \
      tests/refersplat/test_blend.py tests/refersplat/test_adam.py tests/refersplat/test_knn.py \
      tests/refersplat/test_ssim.py \
      tests/detailbase/test_voxelize.py tests/detailbase/test_kernel_map.py \
      tests/detailbase/test_sparse_conv.py tests/detailbase/test_segment_reduce.py \
      -k "cuda and reference" || failed=1
  done
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
else
  echo "compute-sanitizer is not installed: the kernels' memory was not checked"
fi
if [[ $# -gt 0 ]]; then
  mkdir -p output
  python benchmarks/gpu.py --input "$1" ${2:+--scene "$2"} --json output/gpu.json
else
  echo "no garden.npz was given: nothing was timed"
fi
exit "$failed"
