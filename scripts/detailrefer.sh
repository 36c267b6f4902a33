# Sourced by train.sh and test.sh: finds DetailRefer and ScanNet, and prepares the scans.
#
# Sets DATA, the dataset folder; PREPARED, the folder of prepared scans; CONFIG, the config file;
# OPTIONS, the other arguments.

# find_dataset SPLITS [folder] [options]: SPLITS are the required ones of DetailRefer.
find_dataset() {
  local splits="$1" missing=() base="" place split
  shift
  DATA="data"
  if [[ $# -gt 0 && "$1" != -* ]]; then
    DATA="$1"
    shift
  fi
  CONFIG="configs/detailbase/detailrefer.yaml" OPTIONS=()
  while [[ $# -gt 0 ]]; do
    case "$1" in
      --config) CONFIG="${2:?--config: expected a file}"; shift 2 ;;
      --config=*) CONFIG="${1#--config=}"; shift ;;
      *) OPTIONS+=("$1"); shift ;;
    esac
  done
  for split in $splits; do
    place="$DATA/DetailRefer/DetailRefer_$split.json"
    [[ -f "$place" ]] || missing+=("$place")
  done
  for place in "$DATA/scannetv2" "$DATA"; do
    if [[ -z "$base" ]] && { [[ -d "$place/scans" ]] || has_prepared "$place"; }; then
      base="$place"
    fi
  done
  [[ -n "$base" ]] || missing+=("$DATA/scannetv2/scans/")
  if [[ ${#missing[@]} -gt 0 ]]; then
    {
      echo "missing:"
      printf '  %s\n' "${missing[@]}"
      echo "DetailRefer comes with the 3D-DRES paper (arXiv 2603.02896). ScanNet v2 is available at"
      echo "http://www.scan-net.org after you sign its terms of use. Each scan needs the files"
      echo "_vh_clean_2.ply, _vh_clean_2.labels.ply, _vh_clean_2.0.010000.segs.json and"
      echo ".aggregation.json; the lists scannetv2_train.txt and scannetv2_val.txt name the scans."
      echo "For another folder, relative to the repository: bash $0 <folder>"
    } >&2
    return 2
  fi
  PREPARED="$base"
  HAS_SCANS=""
  [[ ! -d "$base/scans" ]] || HAS_SCANS=yes
  # Root may write anywhere, but must not write into a read-only folder either.
  if [[ -n "$HAS_SCANS" ]] && [[ ! -w "$base" || -z "$(find "$base" -maxdepth 0 -perm -200)" ]]; then
    # The checksum of the path distinguishes datasets of the same name.
    PREPARED="exps/prepared/$(basename "$DATA")-$(cd "$DATA" && pwd | cksum | cut -d' ' -f1)"
  fi
}

# has_prepared FOLDER: whether it holds prepared scans.
has_prepared() {
  compgen -G "$1/train/*_refer.pth" > /dev/null || compgen -G "$1/val/*_refer.pth" > /dev/null
}

# prepare_scans SPLIT: prepares the scans that are not prepared yet.
prepare_scans() {
  if [[ -n "$HAS_SCANS" ]]; then
    python scripts/prepare_scannet.py --root "$DATA" --out "$PREPARED" --split "$1"
  fi
}

# describe_scans: makes sentences and new rooms from labelled scans, once, where the config trains on them.
describe_scans() {
  local file="Described/described_train.json"
  if [[ -n "$HAS_SCANS" && ! -f "$DATA/$file" && ! -f "$PREPARED/$file" ]] &&
    grep -qs "^ *train_on:.*described" "$CONFIG"; then
    python -m detailbase describe --root "$DATA" --out "$PREPARED/$file" --prepared "$PREPARED" --compose 120
  fi
}
