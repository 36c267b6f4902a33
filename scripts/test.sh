#!/usr/bin/env bash
# Scores a checkpoint on DetailRefer's test split:
# bash scripts/test.sh [folder] --checkpoint FILE [--config FILE] [--work_dir DIR] [options of eval.py]
# The folder (default: data) holds DetailRefer/ and scannetv2/, or scans/. Paths are relative to the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/detailrefer.sh
find_dataset "test" "$@"
source scripts/venv.sh
use_venv
prepare_scans val # it contains the test scans
python eval.py --config "$CONFIG" --data.root "$DATA" --data.prepared "$PREPARED" ${OPTIONS[@]+"${OPTIONS[@]}"}
