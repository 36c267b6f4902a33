# Sourced by train.sh and test.sh: finds DetailRefer and ScanNet, and prepares the scans.
#
# Sets DATA, the dataset folder; PREPARED, that of prepared scans; OPTIONS, what else was given.

# find_dataset SPLITS [folder] [options]: SPLITS are those of DetailRefer that are needed.
find_dataset() {
  local splits="$1" missing=() split base
  shift
  DATA="data"
  if [[ $# -gt 0 && "$1" != -* ]]; then
    DATA="$1"
    shift
  fi
  OPTIONS=("$@")
  for split in $splits; do
    [[ -f "$DATA/DetailRefer/DetailRefer_$split.json" ]] || missing+=("$DATA/DetailRefer/DetailRefer_$split.json")
  done
  base=""
  for split in "$DATA/scannetv2" "$DATA"; do
    if [[ -d "$split/scans" ]]; then base="$split"; fi
  done
  [[ -n "$base" ]] || missing+=("$DATA/scannetv2/scans/")
  if [[ ${#missing[@]} -gt 0 ]]; then
    {
      echo "These are missing:"
      printf '  %s\n' "${missing[@]}"
      echo "DetailRefer comes with the 3D-DRES paper (arXiv 2603.02896). ScanNet v2 is given out at"
      echo "http://www.scan-net.org after its terms of use are signed; of each scan the files"
      echo "_vh_clean_2.ply, _vh_clean_2.labels.ply, _vh_clean_2.0.010000.segs.json and"
      echo ".aggregation.json are needed, and the lists scannetv2_train.txt and scannetv2_val.txt."
      echo "Another folder: bash $0 <folder>"
    } >&2
    return 2
  fi
  PREPARED="$base"
  if [[ ! -w "$base" ]]; then # its name tells two datasets apart
    PREPARED="exps/prepared/$(basename "$DATA")-$(cd "$DATA" && pwd | cksum | cut -d' ' -f1)"
  fi
}

prepare_scans() {
  python scripts/prepare_scannet.py --root "$DATA" --out "$PREPARED"
}
