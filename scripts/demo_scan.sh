#!/usr/bin/env bash
# Marks the phrases of sentences in the demo room of the repository:
# bash scripts/demo_scan.sh ["a sentence" ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
use_venv

ROOM=data/demo/room
OUT=output/demo_scan
if [[ $# -gt 0 ]]; then
  sentences=("$@")
else
  sentences=()
  while IFS= read -r sentence; do sentences+=("$sentence"); done < "$ROOM/sentences.txt"
fi
for index in "${!sentences[@]}"; do
  echo
  echo "${sentences[$index]}"
  python -m detailbase predict "$ROOM/room.ply" "${sentences[$index]}" -o "$OUT/$index"
done
echo
echo "Pictures: $OUT/*/picture.png"
