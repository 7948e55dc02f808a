#!/usr/bin/env bash
# The first hour on a node with GPUs, after `GPU=1 make setup`: see usage below.
set -euo pipefail

PROGRAM=launch/gpu_check.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"

usage() {
  cat <<'END'
Usage: launch/gpu_check.sh [--dry-run] [-n RANKS] [--folder FOLDER]

Checks this node, one rank a GPU, in about an hour: devices, environment, sums by NCCL against a
closed form, a training and its audit, fp32, bf16 and fp16, throughput. Every step's output is kept
in FOLDER (default runs/gpu-check-DATE), also of those that fail; the last lines say what to send.

  -n RANKS      how many GPUs; default all that nvidia-smi lists
  --dry-run     print the steps instead of running them; needs no GPU
END
}

RANKS="" DRY_RUN="" FOLDER=""
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) DRY_RUN=1 ;;
    -n | --folder)
      [ $# -gt 1 ] || die "$1 needs a value; see $PROGRAM --help" 2
      if [ "$1" = -n ]; then RANKS=$2; else FOLDER=$2; fi
      shift
      ;;
    *) die "$1 is not known; see $PROGRAM --help" 2 ;;
  esac
  shift
done

# Stops in one line where there is nothing to check.
look_for_gpus() {
  local listed device
  command -v nvidia-smi >/dev/null ||
    die "no GPU here: nvidia-smi not found; run this in a job on a node with NVIDIA GPUs (--dry-run prints the steps)"
  listed=$(nvidia-smi -L 2>&1 | grep -c '^GPU ') ||
    die "no GPU here: nvidia-smi says: $(nvidia-smi -L 2>&1 | head -n 1); run this in a job on a node with NVIDIA GPUs"
  RANKS=${RANKS:-$listed}
  [ "$RANKS" -le "$listed" ] || die "-n $RANKS, but nvidia-smi lists $listed GPUs"
  device=$(sed -n 2p "$ROOT/.venv/.setup-mpi" 2>/dev/null || true)
  [ "$device" = gpu ] || die "this clone is set up for ${device:-nothing}; call GPU=1 make setup first"
}

# Runs one step. Usage: step NAME "what it has to show" COMMAND...
step() {
  local name=$1 shows=$2 status=0 begun=$SECONDS
  shift 2
  if [ -n "$DRY_RUN" ]; then
    printf '# %s: %s\n%s\n' "$name" "$shows" "$*"
    return
  fi
  printf '%s: %s ... ' "$name" "$shows"
  printf '$ %s\n' "$*" >"$FOLDER/$name.log"
  timeout 1800 "$@" >>"$FOLDER/$name.log" 2>&1 </dev/null || status=$?
  if [ "$status" -eq 0 ]; then
    printf 'ok, %s s\n' $((SECONDS - begun))
  else
    printf 'FAILED with status %s, see %s/%s.log\n' "$status" "$FOLDER" "$name"
    FAILED+=("$name")
  fi
  printf '%s\t%s\t%s s\n' "$name" "$status" $((SECONDS - begun)) >>"$FOLDER/steps.tsv"
}

FAILED=()
if [ -n "$DRY_RUN" ]; then RANKS=${RANKS:-GPUS}; else look_for_gpus; fi
FOLDER=${FOLDER:-runs/gpu-check-$(date +%Y%m%d-%H%M%S)}
cd "$ROOT"
if [ -z "$DRY_RUN" ]; then mkdir -p "$FOLDER"; fi
all=(bash launch/mpirun.sh -n "$RANKS" --)
one=(bash launch/mpirun.sh -n 1 --)
ba_dist=.venv/bin/ba-dist
copies=$RANKS # a copy on each GPU
if [ "$RANKS" = 1 ]; then copies=2; fi
bench=(python benchmarks/throughput.py --trials 20 --warm-up 5 --baseline horovod)

step devices "every GPU, its driver and memory" nvidia-smi
step links "how the GPUs are joined" nvidia-smi topo -m
step doctor "nothing is wrong on any rank" "${all[@]}" doctor
step sums "NCCL's sums are those of a closed form, bit for bit" "${all[@]}" python launch/check_allreduce.py GPU
step data "Fashion-MNIST is here (digits take its place where not)" "$ba_dist" data prepare fashion_mnist
step train "the quickstart learns, with a copy of each sample on each GPU" "${all[@]}" train quickstart \
  --multiplicity "$copies" --trace --run-dir "$FOLDER/train"
step audit "every sample was seen, every copy is what it should be" "$ba_dist" audit "$FOLDER/train"
step again "the same run again" "${all[@]}" train quickstart --multiplicity "$copies" --trace \
  --run-dir "$FOLDER/again"
step compare "both runs, side by side" "$ba_dist" compare "$FOLDER/train" "$FOLDER/again"
for precision in bf16 fp16; do
  step "train-$precision" "it learns in $precision as well" "${all[@]}" train quickstart \
    --multiplicity "$copies" --precision "$precision" --run-dir "$FOLDER/train-$precision"
done
for precision in fp32 bf16 fp16; do
  step "one-$precision" "ResNet-50 images per second, 1 GPU, $precision" "${one[@]}" "${bench[@]}" \
    --batch-sizes 32,128,256 --precision "$precision" --output "$FOLDER/one-$precision.json"
  step "all-$precision" "the same on all GPUs" "${all[@]}" "${bench[@]}" \
    --batch-sizes 32,128,256 --precision "$precision" --output "$FOLDER/all-$precision.json"
done
step input "the same, fed from JPEG files" "${all[@]}" python benchmarks/throughput.py --trials 20 \
  --warm-up 5 --batch-sizes 128 --precision bf16 --dataset synthetic-jpeg --output "$FOLDER/input.json"

if [ -n "$DRY_RUN" ]; then exit 0; fi
cp .venv/setup.log "$FOLDER/setup.log" 2>/dev/null || true
git rev-parse HEAD >"$FOLDER/commit" 2>/dev/null || true
# The checkpoints stay here: they are large and tell nothing.
tar -czf "$FOLDER.tar.gz" --exclude '*.safetensors' --exclude checkpoints -C "$(dirname "$FOLDER")" "$(basename "$FOLDER")"
if [ ${#FAILED[@]} -eq 0 ]; then echo "all steps passed"; else echo "failed: ${FAILED[*]}"; fi
echo "send $FOLDER.tar.gz with an issue of the project: outputs, tables and setup.log; look through it first,"
echo "it holds host names and paths"
[ ${#FAILED[@]} -eq 0 ]
