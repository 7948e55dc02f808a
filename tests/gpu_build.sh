#!/usr/bin/env bash
# Compiles Horovod for CUDA and NCCL where no GPU is, and looks at what comes out.
#
#   tests/gpu_build.sh [FOLDER]        # FOLDER, by default a new temporary one, keeps clone and log
#
# pip has no nvcc of CUDA 12, so CUDA 13's compiles here. Users' set-ups refuse it: whether its kernels
# run beside the CUDA 12 of TensorFlow is not known. What is shown is that the sources, flags and
# libraries of `GPU=1 make setup` go together, and that sums on CPUs are right with that build.
set -euo pipefail

# shellcheck disable=SC2034 # `die` of lib.sh reads it
PROGRAM=tests/gpu_build.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
FOLDER=${1:-$(temporary_folder)}
CLONE=$FOLDER/clone
CUDA=$FOLDER/cuda/nvidia/cu13

[ -x "$ROOT/.venv/bin/python" ] || die "no .venv here; call make setup first"
[ ! -e "$CLONE" ] || die "$CLONE is there already; name another folder"
mkdir -p "$FOLDER"
printf 'clone, compiler and log are in %s\n' "$FOLDER"
"$ROOT/.venv/bin/python" -m pip install -q --target "$FOLDER/cuda" --no-deps \
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
# As an installed CUDA has it.
ln -s lib "$CUDA/lib64"
ln -s libcudart.so.13 "$CUDA/lib/libcudart.so"

git clone -q "$ROOT" "$CLONE"
# A cache of its own: that wheel must never reach a set-up that somebody trains with. 80 and 90 are A100
# and H100; the oldest that Horovod would choose by itself are unknown to CUDA 13.
XDG_CACHE_HOME=$FOLDER/cache GPU=1 CUDA_HOME=$CUDA CUDA_CC_LIST=80,90 BA_DIST_NVCC_MAJOR=13 \
  PYTHON=$("$ROOT/.venv/bin/python" -c 'import sys; print(sys._base_executable)') \
  MPICXX=none bash "$CLONE/launch/setup.sh"

cd "$CLONE"
PYTHONPATH='' .venv/bin/python - <<'END'
from ba_dist.comm.installed import import_horovod

hvd = import_horovod()
assert hvd.nccl_built() and hvd.cuda_built(), (hvd.nccl_built(), hvd.cuda_built())
print("Horovod has CUDA", bool(hvd.cuda_built()), "and NCCL", hvd.nccl_built())
END
# Without a GPU its sums go over MPI.
PYTHONPATH=$CLONE .venv/bin/python -m pytest -q tests/parallel/test_sums.py
