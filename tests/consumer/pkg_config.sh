#!/bin/sh
# usage: pkg_config.sh PREFIX TORCH_DIR SOURCE PROGRAM   compiles SOURCE by what pkg-config says of the steer in PREFIX.
set -eu
prefix=$1 torch=$(cd "$2/../../.." && pwd)
flags=$(PKG_CONFIG_PATH="$prefix/lib/pkgconfig:$prefix/lib64/pkgconfig" pkg-config --define-variable=torch="$torch" --cflags --libs steer)
# shellcheck disable=SC2086  # flags are words
${CXX:-c++} -O0 "$3" -o "$4" $flags
"$4"
