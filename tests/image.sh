#!/usr/bin/env bash
# Runs the steps of launch/ba_dist.def in a bare Debian, where no Apptainer is: whether the packages that
# it installs and the files that it copies are all that set-up needs.
#
#   tests/image.sh [FOLDER]        # root, on Debian; FOLDER, by default a new temporary one, keeps the tree
#
# In place of NVIDIA's image, which has CUDA's compiler, there is what debootstrap makes, and so GPU=0.
set -euo pipefail

# shellcheck disable=SC2034 # `die` of lib.sh reads it
PROGRAM=tests/image.sh
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=launch/lib.sh
. "$ROOT/launch/lib.sh"
DEFINITION=$ROOT/launch/ba_dist.def

# The lines of a section, without their indentation. Usage: section NAME
section() {
  sed -n "/^%$1\$/,/^%/{/^%/d;s/^ *//;p}" "$DEFINITION"
}

# Debian without anything that is not essential, with this machine's way to packages.
make_tree() {
  local suite uri from
  suite=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
  # shellcheck disable=SC2016 # these are apt-get's
  uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' "Created-By: Packages" |
    sed -n "s/ $suite\$//p" | head -n 1)
  # Debian's tool, used from a folder: nothing is left on this machine.
  mkdir -p "$FOLDER/tool"
  (cd "$FOLDER/tool" && apt-get download -qq debootstrap && dpkg-deb -x debootstrap_*.deb .)
  DEBOOTSTRAP_DIR=$FOLDER/tool/usr/share/debootstrap "$FOLDER/tool/usr/sbin/debootstrap" \
    --variant=minbase "$suite" "$TREE" "$uri" >"$FOLDER/debootstrap.log"
  for from in /etc/apt /etc/resolv.conf /etc/pip.conf /root/.config/pip \
    /usr/local/share/ca-certificates; do
    if [ -e "$from" ]; then
      mkdir -p "$TREE${from%/*}"
      cp -rLT "$from" "$TREE$from"
    fi
  done
}

# Copies what section files names, of what is committed.
copy_files() {
  local from to
  git -C "$ROOT" archive --format=tar --prefix=source/ HEAD | tar -x -C "$FOLDER"
  while read -r from to; do
    if [ -n "$from" ]; then
      mkdir -p "$TREE${to%/*}"
      cp -rT "$FOLDER/source/$from" "$TREE$to"
    fi
  done < <(section files)
}

# Runs a section in the tree. Its mounts go with the shell that makes them. Usage: run_section NAME
run_section() {
  local steps
  steps=$(section "$1")
  printf '%s\n' "${steps/GPU=1 CUDA_HOME=\/usr\/local\/cuda/GPU=0}" >"$TREE/steps"
  # shellcheck disable=SC2016 # these are that shell's
  unshare --mount bash -c 'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" &&
    exec chroot "$1" /usr/bin/env -u PYTHONPATH -u XDG_CACHE_HOME -u PIP_FIND_LINKS \
      HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -e /steps' _ "$TREE"
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then die "this takes root, on Debian"; fi
FOLDER=${1:-$(temporary_folder)} TREE=${FOLDER%/}/tree
[ ! -e "$TREE" ] || die "$TREE is there already; name another folder"
mkdir -p "$FOLDER"
printf 'the tree is in %s\n' "$FOLDER"
make_tree
copy_files
run_section post
run_section test
printf 'the steps of %s end well, in %s with GPU=0\n' launch/ba_dist.def "$(. /etc/os-release && printf '%s' "$PRETTY_NAME")"
