#!/usr/bin/env bash
# Trains detailbase on DetailRefer:
# bash scripts/train.sh [folder] [--config FILE] [--work_dir DIR] [options of train.py]
# configs/detailbase/small.yaml is for few scans and a CPU, detailrefer.yaml, the default, for the whole dataset.
# The folder (default: data) holds DetailRefer/ and scannetv2/, or scans/. Paths are relative to the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/detailrefer.sh
find_dataset "train val" "$@"
source scripts/venv.sh
use_venv
prepare_scans all
describe_scans
python train.py --config "$CONFIG" --data.root "$DATA" --data.prepared "$PREPARED" ${OPTIONS[@]+"${OPTIONS[@]}"}
