#!/usr/bin/env bash
# Trains on the demo scene of the repository, renders and evaluates: bash scripts/demo.sh [--force]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  "" | --force) ;;
  *) echo "usage: bash scripts/demo.sh [--force]   (--force trains again)" >&2; exit 2 ;;
esac
source scripts/venv.sh
use_venv

SCENE=data/demo/tabletop
CONFIG=configs/refersplat/demo.yaml
OUT=output/demo
# A change of the scene or of the settings starts the training again; one that was stopped goes on.
trained_from="$(cat "$CONFIG" <(find "$SCENE" -type f | LC_ALL=C sort | xargs cksum) | cksum)"

[[ "${1:-}" != --force ]] || rm -rf "$OUT"
if [[ "$(cat "$OUT/trained_from" 2> /dev/null)" == "$trained_from" ]]; then
  echo "$OUT is up to date; bash scripts/demo.sh --force trains again"
else
  resume=--resume
  if [[ ! -f "$OUT/config.yaml" || "$(cat "$OUT/begun_from" 2> /dev/null)" != "$trained_from" ]]; then
    resume=
    rm -rf "$OUT"
    mkdir -p "$OUT"
    echo "$trained_from" > "$OUT/begun_from"
  fi
  python train.py -s "$SCENE" -m "$OUT" --config "$CONFIG" --eval ${resume:+"$resume"}
  mv "$OUT/begun_from" "$OUT/trained_from"
fi
python render.py -m "$OUT"
python eval.py -m "$OUT"

echo
echo "Pictures with the described objects marked: $OUT/renders/test/report.html"
echo "All scores, best and worst samples:         $OUT/report.html"
echo "Ask a question of your own:                 python render.py -m $OUT --sentence \"the tall yellow bottle\""
