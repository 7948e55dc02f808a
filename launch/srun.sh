#!/usr/bin/env bash
# Starts ba-dist, or a Python script, on the ranks of a Slurm allocation with srun.
set -euo pipefail

PROGRAM=launch/srun.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
# shellcheck source=launch/ranks.sh
. "$ROOT/launch/ranks.sh"

usage() {
  cat <<'END'
Usage: launch/srun.sh [-n RANKS] [options of srun ...] -- WORDS ...

Used inside an allocation (sbatch, salloc). WORDS are what would follow `ba-dist`, or `python` and
what would follow it:

  launch/srun.sh -- train quickstart --multiplicity 4
  launch/srun.sh -n 4 --cpu-bind=cores -- python my_script.py --flag

  -n RANKS       how many ranks; by default as many as the allocation was asked for, or one a node
  --dry-run      print the command instead of running it
  -h, --help     this text

Every other option before `--` goes to srun as it is, and replaces what would be chosen here.

What is chosen here: `--mpi=pmix` with Open MPI, and the site's own choice with any other MPI;
`--kill-on-bad-exit=1`, so that nobody waits for a rank that has failed; the CPUs of the allocation
are divided evenly among the ranks of a node, as SRUN_CPUS_PER_TASK, OMP_NUM_THREADS and
TF_NUM_INTRAOP_THREADS. Values that are already set are kept.

To stop a run, press Ctrl-C, or send SIGTERM or SIGUSR2 to this command: every rank gets SIGUSR2, so
that the program may save its state and end. A second Ctrl-C ends it at once; so do 60 seconds
(BA_DIST_STOP_SECONDS) of waiting. The exit status is the program's own.
END
}

# ---------------------------------------------------------------- reading the command line

RANKS="" NODES="" RANKS_PER_NODE="" CPUS="" DRY_RUN="" MPI_GIVEN=""
SRUN_OPTIONS=() WORDS=()

parse() {
  local separator="" option
  while [ $# -gt 0 ]; do
    option=$1
    case $option in
      -n | -N | -c | --ntasks | --nodes | --ntasks-per-node | --cpus-per-task | --mpi)
        [ $# -gt 1 ] && [ "$2" != -- ] || die "$1 needs a value; see launch/srun.sh --help"
        option=$1=$2
        SRUN_OPTIONS+=("$1")
        shift
        ;;
    esac
    case $option in
      --) separator=1 && shift && WORDS=("$@") && break ;;
      -h | --help) usage && exit 0 ;;
      --dry-run) DRY_RUN=1 && shift && continue ;;
      -n=* | --ntasks=*) RANKS=${option#*=} ;;
      -n[0-9]*) RANKS=${option#-n} ;;
      -N[0-9]*) NODES=${option#-N} ;;
      -c[0-9]*) CPUS=${option#-c} ;;
      -N=* | --nodes=*) NODES=${option#*=} ;;
      --ntasks-per-node=*) RANKS_PER_NODE=${option#*=} ;;
      -c=* | --cpus-per-task=*) CPUS=${option#*=} ;;
      --mpi=*) MPI_GIVEN=1 ;;
    esac
    SRUN_OPTIONS+=("$1")
    shift
  done
  [ -n "$separator" ] || die "no \`--\` before the program; for example: launch/srun.sh -- train quickstart"
  [ ${#WORDS[@]} -gt 0 ] || die "nothing after \`--\`; for example: launch/srun.sh -- train quickstart"
  local number
  for number in "$RANKS" "$RANKS_PER_NODE" "$CPUS"; do
    [[ ${number:-1} =~ ^[1-9][0-9]*$ ]] || die "ranks and CPUs are numbers from 1 up, not '$number'"
  done
}

# ---------------------------------------------------------------- what a rank may use

# Sets PER_RANK, the threads of a rank, and tells srun the CPUs to give it.
share_cpus() {
  local nodes=$NODES here=$RANKS_PER_NODE cpus=${CPUS:-${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-}}}
  # srun also takes a range of nodes.
  [[ $nodes =~ ^[1-9][0-9]*$ ]] || nodes=${SLURM_JOB_NUM_NODES:-1}
  if [ -z "$here" ]; then
    RANKS=${RANKS:-${SLURM_NTASKS:-$nodes}}
    here=$(((RANKS + nodes - 1) / nodes))
  fi
  count_cores
  PER_RANK=$((here < CORES ? CORES / here : 1))
  if [ -z "$cpus" ]; then
    # salloc tells the second alone, such as 64(x2).
    cpus=${SLURM_CPUS_ON_NODE:-${SLURM_JOB_CPUS_PER_NODE:-1}}
    cpus=${cpus%%[(,]*}
    cpus=$((cpus / here))
    cpus=$((cpus > 0 ? cpus : 1))
  elif [ "$cpus" -lt "$PER_RANK" ]; then
    PER_RANK=$cpus
  fi
  # Since Slurm 22.05 srun does not take this over from sbatch, and would give a rank one CPU.
  export SRUN_CPUS_PER_TASK=$cpus
}

export_settings() {
  # A job submitted with --export=NONE would pass an empty environment on to its ranks.
  export SLURM_EXPORT_ENV=ALL
  # Slurm's PMIx releases the ranks from MPI_Init one node after the other if it gathers them as a
  # tree, and Open MPI 5 crashes on a message from a rank that is ahead (open-mpi/ompi#13559): 25 of
  # 271 starts on four nodes; as a ring, none of 145.
  export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}
  if [ "$SINGLE_COPY" = 0 ]; then
    case $MPI_KIND in
      openmpi4) export OMPI_MCA_btl_vader_single_copy_mechanism=none ;;
      openmpi5) export OMPI_MCA_smsc=^cma ;;
    esac
  fi
}

# ---------------------------------------------------------------- from start to end

parse "$@"
[ -n "${SLURM_JOB_ID:-}" ] ||
  die "there is no allocation here; get one with salloc or sbatch, or use launch/mpirun.sh"
command -v srun >/dev/null || die "there is no srun here; load the site's Slurm module"
find_mpi
share_cpus
export_threads
export_yield
export_settings
choose_command "${WORDS[@]}"
OPTIONS=(--kill-on-bad-exit=1)
case $MPI_KIND in openmpi*) [ -n "$MPI_GIVEN" ] || OPTIONS+=(--mpi=pmix) ;; esac
LINE=(srun "${OPTIONS[@]}" "${SRUN_OPTIONS[@]}" "${COMMAND[@]}")
if [ -n "$DRY_RUN" ]; then
  show_line "${LINE[@]}"
  exit 0
fi
# srun passes SIGUSR2 on to the ranks, and ends them on SIGTERM.
supervise srun USR2 TERM "${LINE[@]}"
