#!/usr/bin/env bash
# Sets up and tests the project with several versions of TensorFlow, Python and MPI, each in a clean
# clone of what is committed here. The table at its end is the one of docs/versions.md.
set -euo pipefail

PROGRAM=tests/matrix.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
# With --short: that layouts and sums agree with one process.
SHORT="tests/parallel/test_sums.py tests/parallel/test_layouts.py"
FAULT=(tests/parallel/test_faults.py -m faults -k test_the_newest_checkpoint_is_corrupt)

usage() {
  cat <<'END'
Usage: tests/matrix.sh [--dry-run] [--short] [--folder FOLDER] [TENSORFLOW:PYTHON:MPI ...]

  tests/matrix.sh                                     # one row for each TensorFlow and MPI
  tests/matrix.sh 2.18.1:3.12:wheel 2.21.0:3.11:/opt/mpich/bin/mpicxx

PYTHON is a number, of pythonNUMBER on the PATH; MPI is a compiler, or `wheel` for the packaged
Open MPI. A row is set up and runs `make run`, `make test` and one test that breaks a run on purpose.
With another MPI than the packaged one `make test` runs its tests of several ranks alone. A row whose
Python or MPI is not here is not run, and the table says so. FOLDER (a new temporary one by default)
keeps clones and logs.

  --short       instead of `make test` only that layouts and sums agree with one process
  --dry-run     print the rows instead of running them
END
}

# Every TensorFlow with the wheel, on a Python each; then the default one with every other MPI.
default_rows() {
  printf '%s\n' 2.18.1:3.11:wheel 2.19.1:3.10:wheel 2.20.0:3.12:wheel 2.21.0:3.13:wheel
  printf '2.21.0:3.11:%s\n' /usr/bin/mpicxx.openmpi /usr/bin/mpicxx.mpich \
    "${I_MPI_ROOT:-/opt/intel/oneapi/mpi/latest}/bin/mpicxx"
}

# What pytest counted, or why it did not come to that. Usage: tested LOG COMMAND...
tested() {
  local log=$1 status=0
  shift
  (cd "$CLONE" && exec timeout 2400 "$@") >"$log" 2>&1 </dev/null || status=$?
  grep -E '[0-9]+ (passed|failed|error).* in [0-9.]+s' "$log" | tail -n 1 |
    sed -E 's/^=+ //; s/,? [0-9]+ (warnings?|deselected)//g; s/ in .*//' | grep . ||
    printf 'ended with status %s' "$status"
  [ "$status" -eq 0 ] || FAILED=1
}

# What `make run` comes to.
accuracy() {
  if (cd "$CLONE" && exec timeout 900 make run) >"$CLONE.log.run" 2>&1 </dev/null; then
    sed -n 's/^ *validation accuracy *//p' "$CLONE.log.run"
  else
    printf 'failed'
  fi
}

# Prints a row of the table. Usage: run_row TENSORFLOW PYTHON MPI
run_row() {
  local started=$SECONDS mpi=$3 tests=$TESTS log trained all
  CLONE=$FOLDER/tensorflow$1-python$2-$(tr -cs 'A-Za-z0-9\n' - <<<"$3")
  if ! command -v "python$2" >/dev/null; then
    printf '| %s | %s | %s | not run: no python%s here | | | |\n' "$1" "$2" "$3" "$2"
    return
  fi
  if [ "$mpi" = wheel ]; then
    mpi=none
  elif [ ! -x "$mpi" ]; then
    printf '| %s | %s | %s | not run: not here | | | |\n' "$1" "$2" "$3"
    return
  elif [ "$tests" = tests ]; then
    tests=tests/parallel
  fi
  git clone -q "$ROOT" "$CLONE"
  log=$CLONE.log
  if ! TENSORFLOW=$1 PYTHON=python$2 MPICXX=$mpi GPU=0 bash "$CLONE/launch/setup.sh" >"$log" 2>&1; then
    printf '| %s | %s | %s | failed: %s | | | |\n' "$1" "$2" "$3" "$(tail -n 1 "$log")"
    FAILED=1
    return
  fi
  mpi=$(sed -n '6{s/ at .*//;p}' "$CLONE/.venv/.setup-base")
  started=$((SECONDS - started))
  trained=$(accuracy)
  # Not in a subshell, which could not say that something failed.
  tested "$log.test" make test TESTS="$tests" >"$log.text"
  all=$(cat "$log.text")
  [ "$tests" = tests ] || all+=" of $tests"
  tested "$log.fault" .venv/bin/python -m pytest "${FAULT[@]}" >"$log.text"
  [ "$trained" != failed ] || FAILED=1
  printf '| %s | %s | %s | %s s | %s | %s | %s |\n' "$1" "$2" "$mpi" "$started" "$trained" \
    "$all" "$(cat "$log.text")"
}

FOLDER="" DRY_RUN="" FAILED="" TESTS=tests ROWS=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) DRY_RUN=1 ;;
    --short) TESTS=$SHORT ;;
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
printf '| TensorFlow | Python | MPI | set-up | make run | make test | a fault |\n'
printf '| --- | --- | --- | --- | --- | --- | --- |\n'
for row in "${ROWS[@]}"; do
  IFS=: read -r tensorflow python mpi <<<"$row"
  run_row "$tensorflow" "$python" "$mpi"
done
[ -z "$FAILED" ]
