#!/usr/bin/env bash
# The whole check: what continuous integration runs. Without arguments: formatting, and release with all tests. With
# arguments: the parts named, in that order; those that cost another build each are asked for by name.
set -uo pipefail
cd "$(dirname "$0")/.."

always=(format release)
by_name=(odr debug asan tsan clang)
below_eval=(test_core test_stats test_io test_text test_model test_sae test_steering test_generate test_features)
logs=build/check
mkdir -p "$logs"

# configure and build a preset's targets, then run the tests whose names match.
build_and_test() {
  local preset=$1 tests=$2
  shift 2
  cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@" &&
    ctest --preset "$preset" -R "$tests"
}

# The formatter's versions differ in what they write, so only the one the tree was written with decides.
part_format() {
  local tool
  for tool in clang-format-16 build/tools/bin/clang-format clang-format; do
    if command -v "$tool" >/dev/null && [[ $("$tool" --version) == *"version 16."* ]]; then
      git ls-files '*.cpp' '*.hpp' '*.inl' | xargs "$tool" --dry-run --Werror
      return
    fi
  done
  echo "format: no clang-format 16 here; scripts/setup.sh --check installs it"
  return 1
}

part_release() { ./scripts/test.sh; }

# Two types or functions of one name: seen only when all translation units are linked at once.
part_odr() { cmake --preset odr && cmake --build --preset odr --target test_eval; }

part_debug() { build_and_test debug '^(core|stats|io|text|model|sae|steering|generate|features)\.' "${below_eval[@]}"; }

part_asan() { build_and_test asan '^(core|stats|io|text|model|sae|steering|generate|features)\.' "${below_eval[@]}"; }

# libgomp is not instrumented: with one OpenMP thread its barriers, which the sanitizer cannot see, are not used. The
# library's own threads run all the same.
part_tsan() {
  OMP_NUM_THREADS=1 build_and_test tsan '^(core\.|model\.(Hooks|Session|Kernel)|steering\.|generate\.)' \
    test_core test_model test_steering test_generate
}

part_clang() { cmake --preset clang && cmake --build --preset clang --target steer; }

parts=("$@")
(($#)) || parts=("${always[@]}")

./scripts/setup.sh --check || exit 1
table=() passed=0 failed=0
for part in "${parts[@]}"; do
  if ! declare -F "part_$part" >/dev/null; then
    echo "check: expected parts of: ${always[*]} ${by_name[*]}, but got '$part'" >&2
    exit 2
  fi
  echo "== $part"
  start=$SECONDS
  if "part_$part" >"$logs/$part.log" 2>&1; then
    verdict=ok
    passed=$((passed + 1))
    grep -E '^[0-9]+% tests passed|: [0-9]+ cases passed' "$logs/$part.log"
  else
    verdict=FAILED
    failed=$((failed + 1))
    grep -E 'error|warning: .*\[-W|\*\*\*Failed|FAILED' "$logs/$part.log" | head -40
    tail -n 40 "$logs/$part.log"
  fi
  table+=("$(printf '%-8s %-6s %5d s' "$part" "$verdict" $((SECONDS - start)))")
done
echo
printf '%s\n' "${table[@]}"
echo "check: $passed passed, $failed failed"
((failed == 0))
