#!/usr/bin/env bash
# All that needs a GPU, in nine minutes, on a machine where nothing may be installed:
#
#   bench/gpu.sh OUT [PART...]     (bench/gpu.sh --help names the parts, and what they answer)
#
#   PYTHON  the interpreter (python3). It has PyTorch, Accelerate, scikit-learn, pytest-benchmark
#           and what those bring; what is missing beside them is said, and the rest is asked.
#   DATA    the folder with MNIST (data); it is downloaded where it is missing.
#   WHEELS  a folder of wheels in pure Python that were carried along, to be used unpacked:
#           jsonargparse with docstring_parser for the command line, pythae for its rows.
set -euo pipefail

DATA=$(realpath --canonicalize-missing "${DATA:-data}")
out=${1:---help}
[ "$out" = --help ] || out=$(realpath --canonicalize-missing "$out")
[ -z "${WHEELS:-}" ] || WHEELS=$(realpath "$WHEELS")
export DATA WHEELS=${WHEELS:-}
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m bench.gpu "$out" "${@:2}"
