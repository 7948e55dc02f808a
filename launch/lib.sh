# Shared by the scripts in launch/; sourced, with the caller's name in PROGRAM.
# shellcheck shell=bash

# One line saying what is wrong and what to do, then the end. Usage: die "message"
die() {
  printf '%s: %s\n' "$PROGRAM" "$1" >&2
  exit "${2:-1}"
}

# Cores this process may use. OMP_NUM_THREADS is hidden: nproc would report it instead.
available_cores() {
  env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc
}

# A new folder for intermediate files. Its name has no spaces, which TensorFlow's compiler flags
# and Open MPI's session folders cannot bear.
temporary_folder() {
  local parent=${TMPDIR:-/tmp}
  case $parent in *" "*) parent=/tmp ;; esac
  mktemp -d "$parent/ba_dist.XXXXXX"
}
