#!/usr/bin/env bash
# What needs a GPU, on a machine where nothing may be installed:
#
#   bench/gpu.sh OUT [environment | tests | bench | mnist]...
#
# runs the parts named, or all, each in at most ten minutes, and leaves their logs, tables and JSON
# in the folder OUT. A part that fails does not keep the next from running; the exit status tells.
#
#   PYTHON  the interpreter (python3). It has PyTorch, Accelerate, scikit-learn, pytest-benchmark
#           and what those bring; whatever else is missing is skipped by name.
#   DATA    the folder with MNIST, for the part mnist (data); it is downloaded where it is missing.
#
# The part mnist is the command line, and so needs jsonargparse, torchvision and Pillow, too. A
# package that is missing can be unpacked from its wheel into any folder on PYTHONPATH:
#
#   python3 -m zipfile -e jsonargparse-*.whl site && PYTHONPATH=$PWD/site bench/gpu.sh OUT
set -uo pipefail

PYTHON=${PYTHON:-python3}
DATA=$(realpath --canonicalize-missing "${DATA:-data}")
out=$(realpath --canonicalize-missing "${1:?usage: bench/gpu.sh OUT [environment|tests|bench|mnist]...}")
shift
mkdir -p "$out"
cd "$(dirname "$0")/.." || exit
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PYTEST_ADDOPTS="-p no:cacheprovider"

environment() {
  nvidia-smi || echo "no nvidia-smi here"
  "$PYTHON" -m torch.utils.collect_env
  "$PYTHON" -m pip list
}

tests() {
  # The other files may import what is missing here.
  grep --recursive --files-with-matches --include='*.py' 'mark\.cuda' tests |
    xargs "$PYTHON" -m pytest -m cuda
}

bench() {
  "$PYTHON" -m pytest bench/ --benchmark-json "$out/bench.json"
}

# Twenty epochs as anybody would train them, and an SVM by each backend that is usable. cuML is
# tried by `auto`, which says why where it takes scikit-learn, and gets latents that never left the
# device.
mnist() (
  set -e
  run=$(mktemp -d)/mnist
  trap 'rm -r "$(dirname "$run")"' EXIT
  "$PYTHON" -m accelerate.commands.launch --config_file accelerate_config.yaml \
    vaekit/train.py --data.name mnist --data.root "$DATA" --run "$run"
  cp "$run/metrics.jsonl" "$out/mnist-metrics.jsonl"
  cp "$run/environment.json" "$out/mnist-environment.json"
  "$PYTHON" -m vaekit latents "$run"
  for backend in sklearn auto; do
    "$PYTHON" -m vaekit svm "$run" --backend "$backend"
    cp "$run/svm/metrics.json" "$out/mnist-svm-$backend.json"
    rm -r "$run/latents" # the next one makes them itself
  done
)

if [ $# -eq 0 ]; then
  set -- environment tests bench mnist
fi
failed=()
for part in "$@"; do
  case $part in
    environment | tests | bench | mnist) ;;
    *) echo "bench/gpu.sh: $part: no such part" >&2 && exit 2 ;;
  esac
  echo "== $part"
  "$part" 2>&1 | tee "$out/$part.log" # not before ||, where `set -e` would not count
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$part")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "bench/gpu.sh: failed: ${failed[*]}; see the logs in $out" >&2
  exit 1
fi
