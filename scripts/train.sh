#!/usr/bin/env bash
# Trains detailbase on DetailRefer: bash scripts/train.sh [folder] [--work_dir DIR] [options of train.py]
# The folder (default: data) holds DetailRefer/ and scannetv2/, or scans/. Paths are relative to the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/detailrefer.sh
find_dataset "train val" "$@"
source scripts/venv.sh
use_venv
prepare_scans all
python train.py --config configs/detailbase/detailrefer.yaml \
  --data.root "$DATA" --data.prepared "$PREPARED" ${OPTIONS[@]+"${OPTIONS[@]}"}
