#!/usr/bin/env bash
# On a machine with a card: builds with the card's kernels, runs the golden suites on it, compares backends node by node
# and measures the table of docs/performance-gpu.md. Needs nvcc, CMake, a libtorch for CUDA (the active Python's) and the
# folder of bench/gpu/pack.sh; no network. Under 8 minutes on 16 cores; what was reached by then is in $OUT.
# usage: OUT=FOLDER bench/gpu/run.sh [PACK]
# REHEARSE=1 runs on the CPU what it can; where nvcc and a libtorch for CUDA are, of the very build that the card gets.
set -uo pipefail
cd "$(dirname "$0")/../.."

pack=$(realpath -m "${1:-build/gpu-pack}")
out=${OUT:-build/gpu-out}
scratch=${SCRATCH:-/tmp/steer-gpu}
device=cuda:0 cuda=ON architectures=native
if [[ -n ${REHEARSE:-} ]]; then
  device=cpu architectures=90
  command -v nvcc >/dev/null && python3 -c 'import torch; assert torch.version.cuda' 2>/dev/null || cuda=OFF
fi
mkdir -p "$out" "$scratch"
log() { printf '%4d s  %s\n' "$SECONDS" "$*" | tee -a "$out/log.txt"; }

log "card: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo none)"
log "cpu: $(lscpu | sed -n 's/^Model name: *//p'), $(nproc) cores"
if [[ ! -d $scratch/prefix ]]; then
  mkdir -p "$scratch/prefix"
  for deb in "$pack"/debs/*.deb; do dpkg -x "$deb" "$scratch/prefix"; done
fi
prefix=$scratch/prefix/usr
export CMAKE_PREFIX_PATH=$prefix CMAKE_LIBRARY_PATH=$prefix/lib/x86_64-linux-gnu CMAKE_INCLUDE_PATH=$prefix/include
export PKG_CONFIG_PATH=$prefix/lib/x86_64-linux-gnu/pkgconfig:$prefix/share/pkgconfig PATH=$prefix/bin:$PATH
export LD_LIBRARY_PATH=$prefix/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}
torch=$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)') || { log "no torch"; exit 1; }
log "torch: $(python3 -c 'import torch; print(torch.__version__, torch.version.cuda)')"

cmake -S . -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTEER_CUDA=$cuda -DTorch_DIR="$torch/Torch" \
  -DCMAKE_CUDA_ARCHITECTURES=$architectures -DSTEER_BUILD_EXAMPLES=OFF -DSTEER_BUILD_DOCS=OFF \
  -DCMAKE_CXX_FLAGS="-isystem $prefix/include" >"$out/configure.txt" 2>&1 || { log "configure failed"; tail -30 "$out/configure.txt"; exit 1; }
log configured
ninja -C "$scratch/build" test_model test_steering bench/card >"$out/build.txt" 2>&1 || { log "build failed"; grep -E 'error' "$out/build.txt" | head -40; exit 1; }
log built

export STEER_GOLDEN_DIR=$pack/golden STEER_TEST_DEVICE=$device
"$scratch/build/tests/test_model" --gtest_brief=1 --gtest_filter='Golden*:Compare*' >"$out/golden.txt" 2>&1
log "golden and comparison: rc $?; $(grep -E 'cases passed|PASSED|FAILED' "$out/golden.txt" | tr '\n' ';')"
timeout 120 "$scratch/build/tests/test_steering" --gtest_brief=1 --gtest_filter='Edits.*:Golden*:RecordedSteps.*' >"$out/steering.txt" 2>&1
log "steering: rc $?; $(grep -E 'cases passed|PASSED|FAILED' "$out/steering.txt" | tr '\n' ';')"
timeout 120 python3 tests/together.py 2 "$scratch/build/tests/test_model" --gtest_brief=1 \
  --gtest_filter='GoldenModels.*:GoldenFamilies.*' >"$out/golden-two-processes.txt" 2>&1
log "golden models in two processes: rc $?; $(grep -E 'cases passed|PASSED|FAILED' "$out/golden-two-processes.txt" | tr '\n' ';')"
card() {  # SHAPE WEIGHTS SECONDS
  timeout "$3" "$scratch/build/bench/card" "$1" "$2" $device >>"$out/card.md" 2>>"$out/log.txt"
  log "card $1 $2: rc $?"
}
card tiny BF16 60
card tiny Q4_K 60
if [[ $device != cpu ]]; then  # in the order of what one wants to know most
  card 8b BF16 120
  card 8b Q4_K 90
  card 70b Q8_0 150
  card 8b int8 120
  card 1b BF16 60
fi
