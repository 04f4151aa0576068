#!/bin/sh
# usage: shared.sh SOURCE BUILD SCRATCH TORCH_DIR PYTHON   builds steer as shared libraries in BUILD, installs and moves
# them to SCRATCH, and uses them in two ways: a program by find_package, and a module that a Python process loads beside its
# own torch. BUILD lies as deep in SOURCE as other builds: then every object comes from the compiler's cache.
set -eu
source=$1 library=$2 scratch=$3 torch_dir=$4 python=$5
here=$source/tests/consumer
rm -rf "$scratch/staged" "$scratch/prefix"
cmake -S "$source" -B "$library" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  "-DTorch_DIR=$torch_dir" "-DCMAKE_CXX_COMPILER=${CXX:-c++}" -DSTEER_BUILD_TESTS=OFF -DSTEER_BUILD_EXAMPLES=OFF \
  -DSTEER_BUILD_BENCH=OFF -DSTEER_BUILD_DOCS=OFF
cmake --build "$library" --target steer
DESTDIR="$scratch/staged" cmake --install "$library" --prefix /opt/steer
mv "$scratch/staged/opt/steer" "$scratch/prefix"

echo "== names"
for file in "$scratch"/prefix/lib*/libsteer_*.so; do
  foreign=$(nm -D --defined-only "$file" | awk '{print $3}' | grep -v '^_Z[A-Za-z0-9_]*N*K*5steer' || true)
  if [ -n "$foreign" ]; then
    echo "expected $file to show names of steer only but got: $(echo "$foreign" | head -3)"
    exit 1
  fi
done
readelf -d "$scratch"/prefix/lib*/libsteer_core.so | grep SONAME

for kind in find_package module; do
  echo "== $kind"
  cmake -S "$here/$kind" -B "$scratch/$kind" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O0 \
    "-DCMAKE_PREFIX_PATH=$scratch/prefix" "-DTorch_DIR=$torch_dir" "-DCMAKE_CXX_COMPILER=${CXX:-c++}" \
    "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER:-}"
  cmake --build "$scratch/$kind"
done
"$scratch/find_package/consumer"
"$python" "$here/module/load.py" "$scratch/module/libprobe.so" "$source/examples/data/demo"
