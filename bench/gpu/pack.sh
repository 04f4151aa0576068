#!/usr/bin/env bash
# Packs what a bare machine with a card lacks into a folder that travels with the tree: Debian packages that the build
# needs and the golden vectors. usage: bench/gpu/pack.sh [FOLDER]   (default: build/gpu-pack; 64 MB is its limit)
set -euo pipefail
cd "$(dirname "$0")/../.."

pack=${1:-build/gpu-pack}
golden=${STEER_GOLDEN_DIR:-../shared/fixtures/golden}
mkdir -p "$pack/debs"
packages=(
  libeigen3-dev libfmt-dev libfmt9 nlohmann-json3-dev libcli11-dev libsentencepiece-dev libsentencepiece0 libprotobuf-lite32
  libpcre2-dev libpcre2-8-0 libxxhash-dev libxxhash0 zlib1g-dev libssl-dev libcpp-httplib-dev libcpp-httplib0.11 libzstd-dev libzstd1
  libboost1.74-dev libgtest-dev libgmock-dev googletest librapidcheck-dev libbenchmark-dev libbenchmark1debian
  libbrotli-dev libbrotli1 ninja-build
)
wanted=()
for package in "${packages[@]}"; do
  apt-cache show "$package" >/dev/null 2>&1 || { echo "pack: expected a Debian package $package but there is none here" >&2; exit 1; }
  wanted+=("$package")
done
(cd "$pack/debs" && rm -f ./*.deb && apt-get download -q "${wanted[@]}" >/dev/null)
# Of Boost only Boost.Math and what it includes; the rest is 100 MB of headers.
rm -rf "$pack/golden" && cp -rL "$golden" "$pack/golden"
du -sh "$pack"
