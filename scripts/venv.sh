# Sourced by the other scripts: makes the virtual environment, installs refer3d into it (again only after
# a change to a file that the installation depends on), and activates it.
#
#   REFER3D_VENV   folder of the environment (default: .venv in the repository)
#   PYTHON         Python that makes it (default: python3)

# Waiting threads must leave their cores to others; see submodules/refer3d/runs/__init__.py.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# Checksum of the dependencies, the list of packages, and the sources of the compiled ops.
installation_state() {
  "$1" - <<'PYTHON'
import hashlib, pathlib, sys

patterns = ["pyproject.toml", "setup.py", "*/csrc/*", "submodules/refer3d/*/csrc/*", "submodules/refer3d/__init__.py"]
state = hashlib.sha256(sys.version.encode())
for path in sorted(path for pattern in patterns for path in pathlib.Path().glob(pattern)):
    # Only the presence of a Python package matters: the installation refers to its folder.
    state.update(str(path).encode() + (b"" if path.name == "__init__.py" else path.read_bytes()))
print(state.hexdigest())
PYTHON
}

# use_venv [dev]: installs the dependencies of the programs, or with dev the development tools, too.
use_venv() {
  local venv="${REFER3D_VENV:-.venv}" extra="${1:-}" python="${PYTHON:-python3}" state
  if ! "$venv/bin/python" -c "" 2> /dev/null; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      echo "Python 3.10 or later is needed as $python; name another with PYTHON=..." >&2
      return 1
    fi
    echo "Making the virtual environment $venv"
    if ! "$python" -m venv --clear "$venv"; then
      echo "$python -m venv failed; on Debian and Ubuntu, install python3-venv" >&2
      return 1
    fi
  fi
  # shellcheck disable=SC1091
  source "$venv/bin/activate"
  state="$(installation_state python)"
  if [[ "$(cat "$venv/installed-dev" 2> /dev/null)" == "$state" ]]; then return; fi
  if [[ -z "$extra" && "$(cat "$venv/installed" 2> /dev/null)" == "$state" ]]; then return; fi
  echo "Installing refer3d into $venv; PyTorch and the ops take some minutes"
  python -m pip install --disable-pip-version-check --no-input --quiet --editable ".${extra:+[$extra]}"
  echo "$state" > "$venv/installed${extra:+-$extra}"
}
