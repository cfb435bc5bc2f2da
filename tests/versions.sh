#!/usr/bin/env bash
# The suite with the oldest versions that pyproject.toml declares, and with the newest:
#
#   tests/versions.sh [ARGUMENT OF PYTEST]...
#
# on Python 3.11, 3.12 and 3.13, as far as they are found. Oldest means the first version within the
# bounds that has a wheel for that Python; what the declared packages bring is of today. Each of the
# six has an environment of its own in build/versions/, 5 GB, which is kept where a test fails.
set -uo pipefail

cd "$(dirname "$0")/.." || exit
npm ci --silent --prefix export || exit # or the clients, the explorer and the wheel are skipped
folder=build/versions
python3 -m venv "$folder/tools" && "$folder/tools/bin/python" -m pip install --quiet uv || exit
uv() { "$folder/tools/bin/uv" "$@"; }

find_python() { # MINOR; on the PATH, or one of pyenv's, whose shims may know none
  local candidate
  for candidate in "python3.$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python; do
    "$candidate" -c 'import sys; print(sys.executable)' 2>/dev/null && return
  done
  return 1
}

make_environment() { # PYTHON RESOLUTION
  uv venv --quiet --clear --seed --python "$1" "$environment" &&
    uv pip install --quiet --python "$environment" --resolution "$2" --only-binary :all: \
      --requirements pyproject.toml --extra dev &&
    uv pip install --quiet --python "$environment" --no-deps --editable .
}

results=() status=0
for minor in 11 12 13; do
  python=$(find_python "$minor") || {
    results+=("Python 3.$minor: not found")
    continue
  }
  for resolution in lowest-direct highest; do
    name="Python 3.$minor, $resolution"
    environment=$folder/3.$minor-$resolution
    echo "== $name"
    if make_environment "$python" "$resolution" &&
      PYTHONPATH=$PWD "$environment/bin/python" -m pytest \
        -n logical --maxprocesses 8 --dist worksteal "$@"; then
      results+=("$name: passed")
      rm -r "$environment"
    else
      results+=("$name: failed; see $environment")
      status=1
    fi
  done
done
printf '%s\n' "${results[@]}"
exit $status
