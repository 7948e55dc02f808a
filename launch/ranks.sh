# Shared by the scripts that start ranks; sourced after lib.sh, with the clone in ROOT.
# shellcheck shell=bash
# The scripts that source this use what it sets.
# shellcheck disable=SC2034

VENV=$ROOT/.venv
PYTHON=$VENV/bin/python

# Sets MPI_KIND (`other` where only the resource manager starts ranks), MPIRUN and DEVICE.
find_mpi() {
  [ -x "$PYTHON" ] && [ -f "$VENV/.setup-mpi" ] || die "no environment in $VENV; run: make setup"
  { read -r MPIRUN && read -r DEVICE; } <"$VENV/.setup-mpi"
  case $MPIRUN in
    .venv/*) MPIRUN=$ROOT/$MPIRUN ;;
    none) MPI_KIND=other && return 0 ;;
  esac
  [ -x "$MPIRUN" ] || die "$MPIRUN is gone; load the MPI module that make setup was run with, or run make setup again"
  local version
  version=$("$MPIRUN" --version 2>&1) || die "$MPIRUN does not run: ${version%%$'\n'*}; load its MPI module"
  case $version in
    *"(Open MPI) "[0-4].* | *OpenRTE*) MPI_KIND=openmpi4 ;;
    *"Open MPI"* | *PRTE* | *prterun*) MPI_KIND=openmpi5 ;;
    *"Intel(R) MPI"*) MPI_KIND=intel ;;
    *HYDRA* | *MPICH*) MPI_KIND=mpich ;;
    *) die "$MPIRUN is neither Open MPI, MPICH nor Intel MPI: ${version%%$'\n'*}" ;;
  esac
}

# Sets CORES, QUOTA and SINGLE_COPY, as launch/probe.py explains, and cuts CORES to the allocation.
count_cores() {
  read -r CORES QUOTA SINGLE_COPY < <("$PYTHON" -IS "$ROOT/launch/probe.py")
  if [ "${SLURM_CPUS_ON_NODE:-$CORES}" -lt "$CORES" ]; then CORES=$SLURM_CPUS_ON_NODE; fi
}

# Tells the ranks how many threads to use, PER_RANK where nothing else was asked for.
export_threads() {
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$PER_RANK}
  export TF_NUM_INTRAOP_THREADS=${TF_NUM_INTRAOP_THREADS:-$PER_RANK}
  # One operation at a time: each already uses all of the rank's cores.
  export TF_NUM_INTEROP_THREADS=${TF_NUM_INTEROP_THREADS:-1}
  # Large arrays in huge pages: 5 % less CPU time a step of ResNet-50. An older C library ignores it.
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
  # The launcher passes a rank's output on in whole lines only. So rank 0 writes its progress bar to
  # this terminal itself, if there is a terminal and rank 0 runs on this host.
  if [ -t 1 ] && [ -t 2 ]; then
    export BA_DIST_TERMINAL=${BA_DIST_TERMINAL:-$(uname -n):$(readlink /proc/self/fd/2)}
  fi
  export BA_DIST_TERMINAL=${BA_DIST_TERMINAL:-none}
}

# Sets COMMAND, what each rank runs for these words; it ends with the process that starts it.
choose_command() {
  # The environment's commands, for programs that start others.
  export PATH="$VENV/bin:$PATH"
  COMMAND=("$PYTHON" -IS "$ROOT/launch/end_with_parent.py" KILL "$PYTHON")
  if [ "$1" = python ]; then COMMAND+=("${@:2}"); else COMMAND+=(-m ba_dist "$@"); fi
}

# What --dry-run prints.
show_line() {
  printf 'OMP_NUM_THREADS=%s TF_NUM_INTRAOP_THREADS=%s TF_NUM_INTEROP_THREADS=%s' \
    "$OMP_NUM_THREADS" "$TF_NUM_INTRAOP_THREADS" "$TF_NUM_INTEROP_THREADS"
  printf ' %q' "$@"
  printf '\n'
}

# Runs a command after some seconds, unless `never "$LATER"` is called before. It keeps no stream open.
later() {
  (
    trap 'kill "$!"; exit' TERM
    sleep "$1" &
    wait "$!"
    "${@:2}"
  ) >/dev/null 2>&1 &
  LATER=$!
}

never() {
  if [ -n "$1" ]; then kill "$1" 2>/dev/null || true; fi
}

# Asks the ranks to save and stop; a second request, or a timeout, ends them.
STOPPING="" INTERRUPTED=""
request_stop() {
  INTERRUPTED=1
  # No `return` here: in a trap during `wait` it would end the script.
  if [ -n "$STOPPING" ]; then
    kill -"$END_SIGNAL" "$CHILD" 2>/dev/null || true
  else
    STOPPING=1
    printf '%s: stopping; once more to stop at once\n' "$PROGRAM" >&2
    kill -"$STOP_SIGNAL" "$CHILD" 2>/dev/null || true
    later "${BA_DIST_STOP_SECONDS:-60}" end_child
    PATIENCE=$LATER
  fi
}

end_child() {
  kill -"$END_SIGNAL" "$CHILD"
  sleep 10
  kill -KILL "$CHILD"
}

# The launcher has printed that it ends, and how. If it is still there after that, it hangs.
expect_end() {
  INTERRUPTED=1
  later "$LINGER_SECONDS" kill -KILL "$CHILD"
  LINGERING=$LATER
}

# Whether a process has a child that runs; children that ended stay until it waits for them.
has_children() {
  local list pid pids
  for list in "/proc/$1/task"/*/children; do
    { read -r -a pids <"$list" || true; } 2>/dev/null
    for pid in "${pids[@]}"; do
      if ! grep -q '^State:.*zombie' "/proc/$pid/status" 2>/dev/null && [ -d "/proc/$pid" ]; then
        return 0
      fi
    done
  done
  return 1
}

# Kills a launcher that is still there when everything that it started has ended.
end_when_alone() {
  local seconds=0
  [ -r "/proc/$$/task/$$/children" ] || return 0
  while kill -0 "$CHILD" && [ "$seconds" -lt "$LINGER_SECONDS" ]; do
    # In the background, so that `never` ends this at once: it holds the pipe of errors open.
    sleep 1 &
    wait "$!"
    if has_children "$CHILD"; then seconds=0; else seconds=$((seconds + 1)); fi
  done
  kill -KILL "$CHILD"
}

# Starts a command, passes requests to stop on to it as STOP_SIGNAL or END_SIGNAL, and sets STATUS.
# It gets its own process group, so that Ctrl-C reaches this script alone, and ends with it.
start_and_wait() {
  # A terminal stops a background process that reads from it.
  if [ -t 0 ]; then exec </dev/null; fi
  set -m
  "$PYTHON" -IS "$ROOT/launch/end_with_parent.py" "$END_SIGNAL" "$@" &
  CHILD=$!
  set +m
  trap request_stop INT TERM HUP USR1 USR2
  trap expect_end ALRM
  if [ -n "${LINGER_SECONDS:-}" ]; then
    later 1 end_when_alone
    WATCHING=$LATER
  fi
  while :; do
    INTERRUPTED="" STATUS=0
    wait "$CHILD" || STATUS=$?
    if [ -z "$INTERRUPTED" ]; then break; fi
  done
  trap '' ALRM
  never "${PATIENCE:-}"
  never "${LINGERING:-}"
  never "${WATCHING:-}"
}

# Like start_and_wait, but STATUS is that of the first rank that failed, where the launcher prints it
# among its errors: `read_status LINE`, of the calling script, finds it and sets REPORTED. If
# LINGER_SECONDS is set, the launcher is killed when it is still there so long after that line, or so
# long after all that it started has ended.
start_and_listen() {
  local errors listener reported=0
  exec {errors}> >(listen)
  listener=$!
  start_and_wait "$@" 2>&"$errors"
  exec {errors}>&-
  # The last lines are on their way, unless a process that the launcher left behind keeps the pipe
  # open: the srun that mpirun used to start its daemon on a lost host does.
  later 5 kill -ALRM "$listener"
  wait "$listener" || reported=$?
  never "$LATER"
  if [ "$reported" != 0 ]; then STATUS=$reported; fi
}

# Passes lines on to the errors of this script, until they end or SIGALRM comes; its status is the
# one that was reported in them.
listen() {
  local line told=""
  REPORTED=""
  trap '' INT TERM HUP USR1 USR2
  trap 'exit "${REPORTED:-0}"' ALRM
  while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line" >&2
    read_status "$line"
    if [ -z "$told" ] && [ -n "$REPORTED" ] && [ -n "${LINGER_SECONDS:-}" ]; then
      told=1
      kill -ALRM "$$"
    fi
  done
  exit "${REPORTED:-0}"
}
