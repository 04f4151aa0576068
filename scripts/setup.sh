#!/usr/bin/env bash
# Installs what the build needs and this machine lacks: Debian packages with apt, libtorch with pip. Says what it will do
# before it does it; run again, it finds everything and does nothing. With --check also what scripts/check.sh needs.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.13.0
clang_format_version=16.0.6
packages=(
  g++ cmake ninja-build ccache pkg-config python3 python3-venv git
  libeigen3-dev libfmt-dev nlohmann-json3-dev libcli11-dev
  libsentencepiece-dev libpcre2-dev libxxhash-dev zlib1g-dev libssl-dev libcpp-httplib-dev libzstd-dev
  libboost-math-dev
  libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev
  doxygen
)
check=0
if [[ ${1:-} == --check ]]; then
  check=1
  packages+=(clang-16 clang-tidy-16 llvm-16 libclang-rt-16-dev libomp-16-dev)
fi

# A tool counts as installed when it is on the PATH, wherever it came from.
installed() {
  case $1 in
    g++ | cmake | git | python3 | ccache | doxygen) command -v "$1" >/dev/null ;;
    ninja-build) command -v ninja >/dev/null ;;
    pkg-config) command -v pkg-config >/dev/null ;;
    clang-16) command -v clang++-16 >/dev/null ;;
    clang-tidy-16) command -v clang-tidy-16 >/dev/null ;;
    llvm-16) command -v llvm-cov-16 >/dev/null ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
  esac
}

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null; then
    echo "setup: this machine has no apt-get. Install these (Debian's names) with its own package manager:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
  fi
  sudo=""
  ((EUID == 0)) || sudo=sudo
  echo "setup: will run: ${sudo:+sudo }apt-get install ${missing[*]}"
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# libtorch: the active Python's, if new enough; else a virtual environment under the build tree.
usable_torch() {
  "$1" - 2>/dev/null <<'EOF'
import sys, torch
sys.exit(tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 11))
EOF
}
if [[ -n ${Torch_DIR:-} ]]; then
  echo "setup: libtorch as given by Torch_DIR"
elif usable_torch python3; then
  :
elif [[ -x build/venv/bin/python3 ]] && usable_torch build/venv/bin/python3; then
  :
else
  echo "setup: will make the virtual environment build/venv and pip install torch==$torch_version into it"
  python3 -m venv build/venv
  build/venv/bin/pip install --quiet "torch==$torch_version" numpy
fi
if ((check)) && ! command -v clang-format-16 >/dev/null && [[ ! -x build/tools/bin/clang-format ]]; then
  echo "setup: will make the virtual environment build/tools and pip install clang-format==$clang_format_version into it"
  python3 -m venv build/tools
  build/tools/bin/pip install --quiet "clang-format==$clang_format_version"
fi
echo "setup: everything the build needs is here"
