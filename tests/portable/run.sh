#!/bin/sh
# usage: tests/portable/run.sh BUILD_FOLDER      Debian: apt-get install g++-12-aarch64-linux-gnu qemu-user-static
# libgtest-dev libfmt-dev nlohmann-json3-dev libboost-math-dev libxxhash-dev
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cmake -S "$here" -B "$1" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++-12
cmake --build "$1"
qemu-aarch64-static -L /usr/aarch64-linux-gnu "$1/test_portable" --gtest_brief=1
