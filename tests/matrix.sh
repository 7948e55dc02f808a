#!/usr/bin/env bash
# Sets up and tests the project with several versions of TensorFlow, Python and MPI, each in a clean
# clone of what is committed here. The table at its end is the one of docs/versions.md.
set -euo pipefail

PROGRAM=tests/matrix.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
# All of `make test`, in its two halves.
UNIT=(tests/unit -n 2 -m "not smoke and not faults and not wide")
PARALLEL=(tests/parallel -m "not smoke and not faults and not wide")
FAULT=(tests/parallel/test_faults.py -k test_the_newest_checkpoint_is_corrupt)
# With --short what others' versions have broken before: layers, optimizers, the step, files, the
# command; and with several ranks, that layouts and sums agree with one process.
SHORT_UNIT=(tests/unit/test_{step,ghost_batch_norm,resnet,adam,sources,tfds_arrays,runtime,doctor,setup}.py)
SHORT_PARALLEL=(tests/parallel/test_{sums,layouts}.py)

usage() {
  cat <<'END'
Usage: tests/matrix.sh [--dry-run] [--short] [--folder FOLDER] [TENSORFLOW:PYTHON:MPI ...]

  tests/matrix.sh                                     # one row for each TensorFlow and MPI
  tests/matrix.sh 2.18.1:3.12:wheel 2.21.0:3.11:/opt/mpich/bin/mpicxx

PYTHON is a number, of pythonNUMBER on the PATH; MPI is a compiler, or `wheel` for the packaged
Open MPI. A row is set up and runs `make run`, all of `make test` and one test that breaks a run on
purpose. A row whose Python or MPI is not here is not run, and the table says so. FOLDER (a new temporary one by default) keeps clones and logs.

  --short       a few tests instead of all
  --dry-run     print the rows instead of running them
END
}

# Every TensorFlow with the wheel, on a Python each; then the default one with every other MPI.
default_rows() {
  printf '%s\n' 2.18.1:3.11:wheel 2.19.1:3.10:wheel 2.20.0:3.12:wheel 2.21.0:3.13:wheel
  printf '2.21.0:3.11:%s\n' /usr/bin/mpicxx.openmpi /usr/bin/mpicxx.mpich \
    "${I_MPI_ROOT:-/opt/intel/oneapi/mpi/latest}/bin/mpicxx"
}

# A number of seconds and what pytest counted, or why there is nothing to count.
# Usage: tested LOG FILES...
tested() {
  local log=$1 status=0
  shift
  (cd "$CLONE" && PYTHONPATH=$CLONE exec timeout 1800 .venv/bin/python -m pytest "$@") \
    >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -gt 1 ]; then
    printf 'ended with status %s' "$status"
  else
    tail -n 1 "$log" | sed -E 's/ in .*//; s/,? ?[0-9]+ warnings?//'
  fi
  [ "$status" -eq 0 ] || FAILED=1
}

# What `make run` comes to.
accuracy() {
  if (cd "$CLONE" && exec timeout 600 make run) >"$CLONE.log.run" 2>&1 </dev/null; then
    sed -n 's/.* val_top1 *//p' "$CLONE.log.run" | tail -n 1
  else
    printf 'failed'
  fi
}

# Prints a row of the table. Usage: run_row TENSORFLOW PYTHON MPI
run_row() {
  local started=$SECONDS mpi=$3 log trained unit parallel
  CLONE=$FOLDER/tensorflow$1-python$2-$(tr -cs 'A-Za-z0-9\n' - <<<"$3")
  if ! command -v "python$2" >/dev/null; then
    printf '| %s | %s | %s | not run: no python%s here | | | | |\n' "$1" "$2" "$3" "$2"
    return
  fi
  if [ "$mpi" = wheel ]; then
    mpi=none
  elif [ ! -x "$mpi" ]; then
    printf '| %s | %s | %s | not run: not here | | | | |\n' "$1" "$2" "$3"
    return
  fi
  git clone -q "$ROOT" "$CLONE"
  log=$CLONE.log
  if ! TENSORFLOW=$1 PYTHON=python$2 MPICXX=$mpi GPU=0 bash "$CLONE/launch/setup.sh" >"$log" 2>&1; then
    printf '| %s | %s | %s | failed: %s | | | | |\n' "$1" "$2" "$3" "$(tail -n 1 "$log")"
    FAILED=1
    return
  fi
  mpi=$(sed -n '6{s/ at .*//;p}' "$CLONE/.venv/.setup-base")
  started=$((SECONDS - started))
  trained=$(accuracy)
  # Not in a subshell, which could not say that something failed.
  tested "$log.unit" "${UNIT[@]}" >"$log.text"
  unit=$(cat "$log.text")
  tested "$log.parallel" "${PARALLEL[@]}" >"$log.text"
  parallel=$(cat "$log.text")
  tested "$log.fault" "${FAULT[@]}" >"$log.text"
  printf '| %s | %s | %s | %s s | %s | %s | %s | %s |\n' "$1" "$2" "$mpi" "$started" "$trained" \
    "$unit" "$parallel" "$(cat "$log.text")"
}

FOLDER="" DRY_RUN="" FAILED="" ROWS=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) DRY_RUN=1 ;;
    --short) UNIT=("${SHORT_UNIT[@]}") PARALLEL=("${SHORT_PARALLEL[@]}") ;;
    --folder) FOLDER=${2:?--folder needs a value} && shift ;;
    *:*:*) ROWS+=("$1") ;;
    *) die "$1 is no TENSORFLOW:PYTHON:MPI; see $PROGRAM --help" 2 ;;
  esac
  shift
done
if [ ${#ROWS[@]} -eq 0 ]; then mapfile -t ROWS < <(default_rows); fi
if [ -n "$DRY_RUN" ]; then printf '%s\n' "${ROWS[@]}" && exit 0; fi

FOLDER=${FOLDER:-$(temporary_folder)}
mkdir -p "$FOLDER"
printf 'commit %s; clones and logs in %s\n\n' "$(git -C "$ROOT" rev-parse --short HEAD)" "$FOLDER"
printf '| TensorFlow | Python | MPI | set-up | make run | tests of one process | of several ranks | a fault |\n'
printf '| --- | --- | --- | --- | --- | --- | --- | --- |\n'
for row in "${ROWS[@]}"; do
  IFS=: read -r tensorflow python mpi <<<"$row"
  run_row "$tensorflow" "$python" "$mpi"
done
[ -z "$FAILED" ]
