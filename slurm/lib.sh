# What the job scripts in this folder share; sourced by them inside the job. It checks the
# environment, starts the ranks, passes signals on to them, and queues the job again on status 75.
#
# Variables that a script or its user may set:
#   BA_DIST_SITE_FILE      a file that is sourced in place of the script's function `site`
#   BA_DIST_LAUNCHER       `srun` or `mpirun` for those of launch/, `plain` for Slurm's srun itself;
#                          by default srun, or plain where the Python of .venv does not run here
#   BA_DIST_PYTHON         the Python to run; set by `ba-dist submit` where there is no clone
#   BA_DIST_DOCTOR=0       skips the check of the environment
#   BA_DIST_MAX_FRUITLESS  requeues in a row without a new checkpoint before it gives up; default 3
# shellcheck shell=bash

RUN_AGAIN=75      # exit status of ba-dist: stopped on request, run me again (ba_dist/training.py)
STEP_OPTIONS=()   # options of srun, set by `site`
RANK_WRAPPER=()   # a command that each rank is started through, set by `site`

say() {
  printf '%(%F %T)T job %s: %s\n' -1 "${SLURM_JOB_ID:-none}" "$1"
}

refuse() {
  say "$1" >&2
  exit 2
}

# The whole job. Usage: run_job RECIPE [flags of `ba-dist train`]
run_job() {
  check_usage "$@"
  trap 'on_signal TERM' TERM
  trap 'on_signal USR1' USR1
  trap 'on_signal USR2' USR2
  # What to submit again; a script of `ba-dist submit` holds its flags itself.
  if [ -n "${BA_DIST_SCRIPT:-}" ]; then
    JOB_SCRIPT=("$BA_DIST_SCRIPT")
  else
    JOB_SCRIPT=("$BA_DIST_HOME/slurm/$SITE.sbatch" "$@")
  fi
  load_site
  choose_run_dir "$@"
  # Slurm itself limits the time for saving.
  export BA_DIST_STOP_SECONDS=${BA_DIST_STOP_SECONDS:-3600}
  say "start $((${SLURM_RESTART_COUNT:-0} + 1)) of $*"
  say "${SLURM_NTASKS:-?} ranks on ${SLURM_JOB_NODELIST:-?}; run directory $RUN_DIR"
  check_environment "$@"
  note_start
  on_all_ranks train "$@" "${ADDED[@]}"
  finish "$STATUS"
}

check_usage() {
  local how="sbatch slurm/$SITE.sbatch RECIPE [flags of ba-dist train]"
  [ -n "${SLURM_JOB_ID:-}" ] || refuse "this is a job script; submit it: $how"
  case ${1:-} in
    --config=?* | ?*.py:?*) ;; # of the user's own
    "" | *[!A-Za-z0-9_.-]* | [.-]*) refuse "'${1:-}' is not the name of a recipe; usage: $how" ;;
  esac
}

# ---------------------------------------------------------------- the site and its cores

# Sets what this site needs. Modules do not work under `set -eu`; the check of the environment finds
# what is wrong after them.
load_site() {
  local start
  set +eu
  # Only login shells are sure to have `module`, and one of those would also reset the PATH.
  for start in "$MODULESHOME/init/bash" "$LMOD_PKG/init/bash" /etc/profile.d/{modules,lmod}.sh; do
    # shellcheck source=/dev/null
    if ! type module >/dev/null 2>&1 && [ -r "$start" ]; then . "$start"; fi
  done
  if [ -n "${BA_DIST_SITE_FILE:-}" ]; then
    [ -r "$BA_DIST_SITE_FILE" ] || refuse "BA_DIST_SITE_FILE=$BA_DIST_SITE_FILE cannot be read"
    # shellcheck source=/dev/null
    . "$BA_DIST_SITE_FILE"
  else
    site
  fi
  set -eu
}

# Does for a plain srun what launch/srun.sh does: threads of a rank from the allocation, where none
# are set, and an environment that reaches the ranks.
prepare_plain_srun() {
  local ranks=${SLURM_NTASKS_PER_NODE:-} cpus cores threads
  if [ -z "$ranks" ]; then
    ranks=$(((${SLURM_NTASKS:-1} + ${SLURM_JOB_NUM_NODES:-1} - 1) / ${SLURM_JOB_NUM_NODES:-1}))
  fi
  if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    cpus=$SLURM_CPUS_PER_TASK threads=$SLURM_CPUS_PER_TASK
  else
    cpus=$((${SLURM_CPUS_ON_NODE:-1} / ranks))
    cores=$(lscpu -p=SOCKET,CORE 2>/dev/null | grep -v '^#' | sort -u | wc -l) || cores=0
    # Where Slurm counts hardware threads, a rank computes best with one thread a core.
    threads=$cpus
    if [ "$cores" -gt 0 ] && [ "${SLURM_CPUS_ON_NODE:-1}" -gt "$cores" ]; then
      threads=$((cores / ranks))
    fi
  fi
  # Since Slurm 22.05 srun does not take this over from sbatch, and would give a rank one CPU.
  export SRUN_CPUS_PER_TASK=$((cpus > 0 ? cpus : 1))
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
  export TF_NUM_INTRAOP_THREADS=${TF_NUM_INTRAOP_THREADS:-$OMP_NUM_THREADS}
  # With one, gradients are sent only when the last of them is computed.
  export TF_NUM_INTEROP_THREADS=${TF_NUM_INTEROP_THREADS:-2}
  # Open MPI 5 sometimes crashes in MPI_Init with the other setting of Slurm's PMIx.
  export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}
  # A job submitted with --export=NONE would pass an empty environment on to its ranks.
  export SLURM_EXPORT_ENV=ALL
}

# ---------------------------------------------------------------- the run directory

# Sets RUN_DIR, the same at every start of this job, and ADDED, the flags that are needed to use it.
choose_run_dir() {
  local recipe=${1##*[:/=]}
  RUN_DIR=$(last_value --run-dir "$@")
  ADDED=()
  if [ -z "$RUN_DIR" ]; then
    RUN_DIR=$PWD/runs/$recipe-$SLURM_JOB_ID
    ADDED+=("--run-dir=$RUN_DIR")
  fi
  # --no-resume is for the first start only: later ones continue from what this job has saved.
  if saved_since "$(first_mark)"; then ADDED+=(--resume); fi
}

# The value of a flag, the last one if it is given several times. Usage: last_value --flag WORDS...
last_value() {
  local flag=$1 value=""
  while [ $# -gt 1 ]; do
    shift
    case $1 in
      "$flag") value=${2:-} ;;
      "$flag"=*) value=${1#*=} ;;
    esac
  done
  printf '%s' "$value"
}

# Files of this job in the run directory: when it first started, and when it last did, with the
# number of fruitless requeues before.
first_mark() { printf '%s' "$RUN_DIR/job/first-start-$SLURM_JOB_ID"; }
last_mark() { printf '%s' "$RUN_DIR/job/last-start-$SLURM_JOB_ID"; }

note_start() {
  # A run directory that cannot be written is for ba-dist to report.
  mkdir -p "$RUN_DIR/job" 2>/dev/null || return 0
  [ -e "$(first_mark)" ] || : >"$(first_mark)"
  printf '%s\n' "$(fruitless)" >"$(last_mark)"
}

fruitless() {
  local count
  count=$(cat "$(last_mark)" 2>/dev/null) || count=0
  [[ $count =~ ^[0-9]+$ ]] || count=0
  printf '%s' "$count"
}

# Whether a checkpoint is newer than this file.
saved_since() {
  [ -e "$1" ] && [ -n "$(find "$RUN_DIR/checkpoints" -name 'step-*' -newer "$1" 2>/dev/null)" ]
}

# ---------------------------------------------------------------- starting the ranks

# Sets COMMAND, which runs `ba-dist` with these words on all ranks. The only place that knows how.
choose_command() {
  local launcher=${BA_DIST_LAUNCHER:-srun} python=${BA_DIST_PYTHON:-$BA_DIST_HOME/.venv/bin/python}
  if [ "$launcher" = srun ]; then
    # launch/srun.sh takes no wrapper, and needs a Python outside of the container, where that of the
    # container may not run.
    [ ${#RANK_WRAPPER[@]} = 0 ] && [ -x "$BA_DIST_HOME/launch/srun.sh" ] &&
      "$python" -c "" 2>/dev/null || launcher=plain
  fi
  case $launcher in
    mpirun) COMMAND=("$BA_DIST_HOME/launch/mpirun.sh" -n "$SLURM_NTASKS" -- "$@") ;;
    srun) COMMAND=("$BA_DIST_HOME/launch/srun.sh" "${STEP_OPTIONS[@]}" -- "$@") ;;
    plain)
      prepare_plain_srun
      COMMAND=(srun --kill-on-bad-exit=1 "${STEP_OPTIONS[@]}" "${RANK_WRAPPER[@]}"
        "$python" -m ba_dist "$@")
      ;;
    *) refuse "BA_DIST_LAUNCHER=$launcher is neither srun, mpirun nor plain" ;;
  esac
}

# Runs `ba-dist` on all ranks and sets STATUS. It runs in the background, because bash calls a trap
# only after the command in the foreground has ended.
CHILD="" STOP="" SIGNALLED="" STATUS=0
on_all_ranks() {
  choose_command "$@"
  STATUS=$RUN_AGAIN
  if [ -n "$STOP" ]; then return 0; fi
  "${COMMAND[@]}" </dev/null &
  CHILD=$!
  # A signal that came while CHILD was not yet set.
  if [ -n "$STOP" ]; then ask_to_stop; fi
  while :; do
    SIGNALLED="" STATUS=0
    wait "$CHILD" || STATUS=$?
    # A trap that was called ends the waiting, not the child.
    if [ -z "$SIGNALLED" ]; then break; fi
  done
  CHILD=""
}

# No `return` and no `exit` here: in a trap during `wait` they would end the script.
on_signal() {
  SIGNALLED=1
  # Once only: at a second request the scripts of launch/ kill the ranks.
  if [ -z "$STOP" ]; then
    STOP=1
    # Further ones are not passed on; a script that got three at once ended with 255 one time.
    trap '' TERM USR1 USR2
    say "SIG$1: asking the ranks to save and stop"
    ask_to_stop
  fi
}

# Always USR2: srun passes it on, while a SIGTERM makes it kill the ranks at once.
ask_to_stop() {
  if [ -n "$CHILD" ]; then kill -USR2 "$CHILD" 2>/dev/null || true; fi
}

# A broken node or a missing module ends the job here, not after an hour.
check_environment() {
  if [ "${BA_DIST_DOCTOR:-1}" = 0 ]; then return 0; fi
  local data
  data=$(last_value --data-dir "$@")
  on_all_ranks doctor ${data:+"--data-dir=$data"}
  if [ -n "$STOP" ] || [ "$STATUS" = 0 ]; then return 0; fi
  say "ba-dist doctor found problems (above), so nothing was trained; BA_DIST_DOCTOR=0 goes on" >&2
  exit "$STATUS"
}

# ---------------------------------------------------------------- afterwards

# Ends the job after the ranks have ended with status $1, or queues it again.
finish() {
  # Slurm sends TERM to this script, too, when it queues the job again. No rank is left to pass it to.
  trap '' TERM USR1 USR2
  if [ "$1" = 0 ]; then
    # srun sometimes ends with 0 when it could not start any rank.
    [ -e "$RUN_DIR/summary.json" ] || unfinished
    say "finished; see $RUN_DIR"
    exit 0
  fi
  # Ranks that were asked to stop while they were starting die of the signal.
  if [ "$1" = "$RUN_AGAIN" ] || { [ "$1" -gt 128 ] && { [ -n "$STOP" ] || preempted; }; }; then
    requeue
    exit "$RUN_AGAIN"
  fi
  say "failed with exit status $1; not requeued" >&2
  exit "$1"
}

unfinished() {
  say "failed: the ranks ended with status 0, but left no summary.json in $RUN_DIR" >&2
  exit 1
}

requeue() {
  local count answer limit=${BA_DIST_MAX_FRUITLESS:-3}
  count=$(fruitless)
  if saved_since "$(last_mark)"; then count=0; else count=$((count + 1)); fi
  if [ -d "$RUN_DIR/job" ]; then printf '%s\n' "$count" >"$(last_mark)"; fi
  if [ "$count" -ge "$limit" ]; then
    say "not requeued: stopped $count times without a new checkpoint; give it more --time" >&2
    exit 1
  fi
  if ! command -v scontrol >/dev/null; then
    say "not requeued: there is no scontrol here. $(how_to_go_on)"
  elif cancelled; then
    say "not requeued: Slurm is ending this job (cancelled, or its time is over). $(how_to_go_on)"
  else
    say "queueing this job again; it goes on from the newest checkpoint in $RUN_DIR"
    answer=$(scontrol requeue "$SLURM_JOB_ID" 2>&1) ||
      say "not requeued: ${answer:-scontrol requeue failed}. $(how_to_go_on)"
  fi
}

# Twice, because a question to a busy controller sometimes times out.
job_facts() {
  local -x SLURM_TIME_FORMAT=standard
  scontrol show job "$SLURM_JOB_ID" 2>/dev/null || scontrol show job "$SLURM_JOB_ID" 2>/dev/null || true
}

# Whether Slurm ends the job to make room for another one. It may have told the ranks only. A time
# before this start is of an earlier one: Slurm 22.05 forgets it at a requeue, others are not known.
preempted() {
  local facts preempted started=""
  facts=$(job_facts)
  [[ $facts =~ [[:space:]]PreemptTime=([0-9][^[:space:]]*) ]] || return 1
  preempted=${BASH_REMATCH[1]}
  if [[ $facts =~ [[:space:]]StartTime=([0-9][^[:space:]]*) ]]; then started=${BASH_REMATCH[1]}; fi
  # Year first, so that text sorts as time does.
  [[ ! $preempted < $started ]]
}

# Whether Slurm ends the job for another reason. What a person has cancelled must not come back,
# and `scontrol requeue` would bring it back.
cancelled() {
  [[ $(job_facts) == *JobState=@(COMPLETING|CANCELLED|TIMEOUT)* ]] && ! preempted
}

how_to_go_on() {
  printf 'To go on, in %q: sbatch' "$PWD"
  printf ' %q' "${JOB_SCRIPT[@]}" "${ADDED[@]}"
  printf '   (with the same options of sbatch)'
}
