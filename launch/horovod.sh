# Horovod's part of set-up: built once per Python, TensorFlow and MPI, then kept for other clones.
# Sourced by setup.sh, whose variables and helpers it uses.
# shellcheck shell=bash

# Horovod's CUDA kernels need a compiler of the CUDA that TensorFlow was built with. Only
# tests/gpu_build.sh, which runs no kernel, takes another one.
check_cuda() {
  local nvcc release major=${BA_DIST_NVCC_MAJOR:-12}
  if [ -n "${CUDA_HOME:-}" ]; then nvcc=$CUDA_HOME/bin/nvcc; else nvcc=$(command -v nvcc || true); fi
  [ -x "$nvcc" ] || die "GPU=1 needs CUDA 12's nvcc, not found${CUDA_HOME:+ under CUDA_HOME=$CUDA_HOME}; load the cluster's CUDA 12 module or set CUDA_HOME"
  release=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p') || true
  case $release in
    "$major".*) CUDA_ROOT=$(cd "$(dirname "$nvcc")/.." && pwd) ;;
    *) die "GPU=1 needs CUDA 12, which TensorFlow 2.18 is built with; $nvcc is ${release:-broken}; load a CUDA 12 module or set CUDA_HOME" ;;
  esac
}

check_compilers() {
  local how="install it (Debian: apt install g++ make; clusters: module load gcc)"
  command -v make >/dev/null || die "make not found; $how"
  CXX_BIN=${CXX:-$(command -v c++ || command -v g++ || command -v clang++ || true)}
  [ -n "$CXX_BIN" ] || die "no C++ compiler found, Horovod needs one to be built; $how"
  printf '#include <optional>\nint main() { return std::optional<int>(0).value(); }\n' >"$TEMPORARY/probe.cc"
  # CXX may hold arguments, so it is split on purpose.
  # shellcheck disable=SC2086
  $CXX_BIN -std=c++17 "$TEMPORARY/probe.cc" -o "$TEMPORARY/probe" >/dev/null 2>&1 ||
    die "$CXX_BIN cannot compile and link a C++17 program (g++ 8 or newer does); $how"
  if [ "$DEVICE" = gpu ]; then check_cuda; fi
  if [ -n "$(patches)" ] && ! command -v patch >/dev/null && ! command -v git >/dev/null; then
    die "neither patch nor git found; Horovod is patched for TensorFlow $TENSORFLOW; install one of them"
  fi
}

# The patches that Horovod needs for this TensorFlow. The number in a name is the first that needs it.
patches() {
  local file first
  for file in "$ROOT"/launch/patches/from-tensorflow-*.patch; do
    first=${file##*-} first=${first%.patch}
    if printf '%s\n' "$first" "$TENSORFLOW" | sort -V -C; then printf '%s\n' "$file"; fi
  done
}

# Sets WHEELS, the folder that keeps the wheel built for exactly this combination. The hash holds
# what the readable part leaves out: paths, flags (this file), patches, the C library.
find_wheels() {
  local details files
  mapfile -t files < <(printf '%s\n' "$ROOT/launch/horovod.sh" "$ROOT/requirements/horovod.txt" && patches)
  details=$("$PYTHON_BIN" -c 'import platform, sysconfig
print(sysconfig.get_config_var("SOABI"), platform.libc_ver())')
  details=$(cat <(printf '%s\n' "$details" "$MPI_NAME" "$DEVICE" ${CUDA_CC_LIST:+"$CUDA_CC_LIST"}) "${files[@]}" | sha256sum)
  WHEELS=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ba_dist/wheels
  WHEELS+=/python${PYTHON_VERSION%.*}-tensorflow$TENSORFLOW-$DEVICE
  WHEELS+=-$(tr -cs 'A-Za-z0-9.\n' _ <<<"${MPI_NAME%% at *}")-${details:0:12}
}

wheel_is_kept() {
  compgen -G "$WHEELS/*.whl" >/dev/null
}

# Sets BUILD, the variables under which Horovod finds TensorFlow, MPI and, with GPU=1, NCCL.
set_build_variables() {
  local bin=$TEMPORARY/bin nccl
  mkdir "$bin"
  BUILD=(
    # What a module may have set for other builds.
    -u CCL_ROOT -u MFLAGS -u MAKELEVEL
    "PATH=$bin:$PATH" "MPI_HOME=$TEMPORARY" "CXX=$CXX_BIN" "TMPDIR=$TEMPORARY"
    HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1
    HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_NVTX=1
    "HOROVOD_CMAKE=$TEMPORARY/tools/cmake/cmake/data/bin/cmake"
    # Otherwise Horovod's setup.py starts eight compilers of a gigabyte each.
    "MAKEFLAGS=-j$(available_cores)"
  )
  # The wheel's mpicxx answers with the environment's real path, spaces and all.
  cat >"$bin/mpicxx" <<END
#!/usr/bin/env bash
answer=\$("${MPI_CXX:-$VENV/bin/mpicxx}" "\$@") || exit
printf '%s\n' "\${answer//"$VENV"/$TEMPORARY/venv}"
END
  # CMake looks for the compiler beside the first mpiexec it finds, and here it finds this one.
  printf '#!/bin/sh\n' >"$bin/mpiexec"
  chmod +x "$bin/mpicxx" "$bin/mpiexec"
  if [ "$DEVICE" = gpu ]; then
    nccl=$("$VENV/bin/python" -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])')
    # The NCCL wheel has libnccl.so.2 only, the linker wants libnccl.so.
    mkdir "$TEMPORARY/nccl"
    ln -s "$nccl/lib/libnccl.so.2" "$TEMPORARY/nccl/libnccl.so"
    BUILD+=(
      HOROVOD_GPU_OPERATIONS=NCCL "HOROVOD_CUDA_HOME=$CUDA_ROOT" HOROVOD_NCCL_LINK=SHARED
      "HOROVOD_NCCL_HOME=$nccl" "HOROVOD_NCCL_INCLUDE=$nccl/include"
      "HOROVOD_NCCL_LIB=$TEMPORARY/nccl"
    )
    if [ -n "$CUDA_CC_LIST" ]; then BUILD+=("HOROVOD_BUILD_CUDA_CC_LIST=$CUDA_CC_LIST"); fi
  fi
}

# Makes the library in an unpacked wheel find MPI and NCCL relative to itself where they come from
# wheels, so that it outlives the clone in which it was built.
relocate() {
  local library entry path="" patchelf=$TEMPORARY/tools/patchelf/bin/patchelf
  library=$(find "$1/horovod/tensorflow" -name 'mpi_lib*.so')
  [ -n "$library" ] || return 1
  if command -v strip >/dev/null; then strip --strip-debug "$library"; fi
  # $ORIGIN is for the dynamic loader, not for the shell.
  # shellcheck disable=SC2016
  if [ -z "$MPI_CXX" ]; then path='$ORIGIN/../../../..'; fi
  if [ "$DEVICE" = gpu ]; then path+="${path:+:}\$ORIGIN/../../nvidia/nccl/lib"; fi
  while IFS= read -r -d : entry; do
    case $entry in "" | "$TEMPORARY"/* | "$VENV"/*) ;; *) path+="${path:+:}$entry" ;; esac
  done <<<"$("$patchelf" --print-rpath "$library"):"
  "$patchelf" --set-rpath "$path" "$library"
}

# Leaves Horovod's sources, checked against their sha256 and patched, in $TEMPORARY/source. They are
# unpacked anew for each build: a folder that was built in before gives a broken library.
fetch_horovod() {
  local file source
  grep '^horovod==' "$ROOT/requirements/horovod.txt" >"$TEMPORARY/horovod.txt"
  venv_python -m pip download --no-deps --no-build-isolation --no-cache-dir --no-binary horovod \
    --require-hashes -d "$TEMPORARY/sdist" -r "$TEMPORARY/horovod.txt" ||
    fail "fetching Horovod failed"
  venv_python -m tarfile -e "$TEMPORARY"/sdist/*.tar.gz "$TEMPORARY/source" ||
    fail "unpacking Horovod failed"
  source=$(echo "$TEMPORARY"/source/*)
  while IFS= read -r file; do
    if command -v patch >/dev/null; then
      logged patch --batch --forward --fuzz=0 -d "$source" -p1 -i "$file"
    else # which passes over files of a repository around it
      logged env GIT_CEILING_DIRECTORIES="$TEMPORARY" git -C "$source" apply -v "$file"
    fi || fail "$file does not fit Horovod"
  done < <(patches)
}

# Leaves a program that comes as a wheel in a folder of its own in $TEMPORARY/tools.
fetch_tool() {
  if [ -e "$TEMPORARY/tools/$1" ]; then return; fi
  venv_python -m pip install --target "$TEMPORARY/tools/$1" "$1==$(pinned horovod "$1")" ||
    fail "fetching $1 failed"
}

# Leaves one relocatable wheel in $TEMPORARY/out.
build_horovod() {
  # TensorFlow's compiler flags break on spaces; this link gives its folder a name without any.
  ln -s "$VENV" "$TEMPORARY/venv"
  fetch_tool cmake
  fetch_tool patchelf
  fetch_horovod
  set_build_variables
  # pip's own cache does not tell one MPI from another, so it is neither read nor filled.
  logged env "${BUILD[@]}" "$TEMPORARY/venv/bin/python" -m pip wheel -v --no-deps \
    --no-build-isolation --no-cache-dir -w "$TEMPORARY/wheel" \
    "$TEMPORARY"/source/* || fail "building Horovod failed"
  venv_python -m wheel unpack -d "$TEMPORARY/unpacked" "$TEMPORARY"/wheel/*.whl ||
    fail "unpacking Horovod failed"
  relocate "$TEMPORARY"/unpacked/* || fail "the Horovod just built has no TensorFlow library"
  mkdir "$TEMPORARY/out"
  venv_python -m wheel pack -d "$TEMPORARY/out" "$TEMPORARY"/unpacked/* ||
    fail "packing Horovod failed"
}

install_horovod() {
  local wheels=$WHEELS
  if wheel_is_kept; then
    say "3/4 Horovod: kept from an earlier set-up"
  else
    say "3/4 Horovod: building against TensorFlow and MPI, about two minutes on two cores"
    build_horovod
    wheels=$TEMPORARY/out
  fi
  venv_python -m pip install --no-deps --no-index --force-reinstall "$wheels"/*.whl ||
    fail "installing Horovod failed"
}

# Keeps a wheel that has proved to work. The rename is atomic: of two set-ups at once the later
# one wins harmlessly, and nobody ever sees half a wheel.
keep_wheel() {
  if wheel_is_kept; then return; fi
  local wheel partial
  wheel=$(basename "$TEMPORARY"/out/*.whl)
  if ! { mkdir -p "$WHEELS" && partial=$(mktemp "$WHEELS/.partial.XXXXXX") &&
    cp "$TEMPORARY/out/$wheel" "$partial" && mv -f "$partial" "$WHEELS/$wheel"; } 2>>"$LOG"; then
    say "note: $WHEELS cannot be written, so the next clone will build Horovod again"
  fi
}

# Tells mpi4py which MPI library to load where it is the machine's own: the one Horovod was linked
# with. A .pth file is read by every Python of the environment, however it was started.
link_mpi() {
  printf '%s\n' "$MPI_RUN" "$DEVICE" >"$MPI_FILE"
  if [ -z "$MPI_CXX" ]; then return; fi
  local library name='libmpi(ch|_(gnu|cray|intel|amd|aocc|nvidia)[_0-9]*)?\.so\S*' site
  site=$(echo "$VENV"/lib/python*/site-packages)
  read -r name library <<<"$(ldd "$site"/horovod/tensorflow/mpi_lib*.so 2>/dev/null |
    sed -nE "s/^\s*($name) => (\/\S+).*/\1 \4/p" | head -n 1)"
  if [ -z "$library" ]; then return; fi
  printf 'import os; os.environ.setdefault("MPI4PY_LIBMPI", "%s")\n' "$library" >"$site/ba_dist_mpi.pth"
  # mpi4py's wheel asks for the name that MPICH gives itself. Debian and Cray call it otherwise.
  case $name in
    libmpi.so*) ;;
    *)
      fetch_tool patchelf
      logged "$TEMPORARY/tools/patchelf/bin/patchelf" --replace-needed libmpi.so.12 "$name" \
        "$site"/mpi4py/MPI.mpich*.so || fail "telling mpi4py of $name failed"
      ;;
  esac
}
