#!/usr/bin/env bash
# The whole check: what continuous integration runs. Without arguments: formatting, release with all tests, clang-tidy on
# what the last commit changed, and one of `turns`, which cost a build of their own, by the commit's hash, in what is left
# of an hour. With arguments: the parts named, in that order, each to its end.
set -uo pipefail
cd "$(dirname "$0")/.."

always=(format release tidy)
turns=(asan tsan odr fuzz)
by_name=(clang python)  # asan compiles all that clang does, with its warnings as errors, but files together
minutes=${STEER_CHECK_MINUTES:-60}
modules='core stats io text model sae steering generate features eval serve'
read -ra all_tests <<<"test_${modules// / test_}"
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

# The first files of the last commit, a dozen at most (one takes ten to thirty seconds). Warnings are for its author to
# judge; they are counted, not failed.
part_tidy() {
  local changed
  mapfile -t changed < <(git diff --name-only --diff-filter=d HEAD~1 HEAD -- 'src/*.cpp' 2>/dev/null)
  ((${#changed[@]})) || { echo "tidy: no file of src changed" && return; }
  cmake --preset clang -B build/tidy -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DSTEER_UNITY=OFF >/dev/null || return
  echo "tidy: ${#changed[@]} files changed, the first 12 looked at"
  clang-tidy-16 --quiet -p build/tidy "${changed[@]:0:12}" 2>/dev/null
  echo "tidy: $(grep -c 'warning: ' "$logs/tidy.log") warnings, in $logs/tidy.log"
}

# Two types or functions of one name: seen only when all translation units are linked at once.
part_odr() { cmake --preset odr && cmake --build --preset odr --target test_eval; }

# Searches that take many minutes in the asan tree. part_release runs them, and much of their code is run by the suites
# beside them.
long_in_asan='^features[.]AutoSteer(Certificate)?$'

# All suites but those with the sanitizers and the standard library's assertions, compiled by clang with warnings as
# errors, at -O0: a third of what -O1 costs. The same run counts lines, and the linker says which functions of one name
# were defined in two ways; the two programs that hold all of the library are linked every time, so that it always does.
part_asan() {
  export LLVM_PROFILE_FILE=$PWD/build/asan/profile/%m.profraw
  # Frames on the heap leak where exceptions pass libtorch, which is not instrumented; soon every call searches all of
  # them. Uses after a scope's end are still found.
  export ASAN_OPTIONS=detect_stack_use_after_return=0
  rm -rf build/asan/profile build/asan/tests/test_{eval,serve}
  cmake --preset asan && cmake --build --preset asan --target "${all_tests[@]}" 2>&1 | tee build/asan/link.log &&
    if grep -A2 'possible ODR violation' build/asan/link.log; then return 1; fi &&
    ctest --preset asan -j 2 -R "^(${modules// /|})[.]" -E "$long_in_asan" && scripts/coverage.py build/asan
}

# Runtimes of others are not instrumented: calls out of them are left out, and with one OpenMP thread OpenMP's barriers,
# which the sanitizer cannot see, are not used. The library's own threads run all the same.
part_tsan() {
  export OMP_NUM_THREADS=1
  export TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp"
  build_and_test tsan '^(core[.]|model[.](Hooks|Session|Kernel)|steering[.]|generate[.]|eval[.](Work|Kill)|serve[.])' \
    test_core test_model test_steering test_generate test_eval test_serve
}

# The library alone, each file by itself: what a file needs it must include.
part_clang() { cmake --preset clang -DSTEER_UNITY=OFF && cmake --build --preset clang --target steer; }

part_fuzz() { cmake --preset fuzz && cmake --build --preset fuzz --target fuzz && tests/fuzz/run.sh build/fuzz 30; }

# The Python package's tests, where its build's own packages are here already or can be had.
part_python() {
  if [[ ! -x build/python-venv/bin/python ]] && ! python3 -m pip download -q --no-deps -d build/check/python nanobind; then
    echo "python: no package index can be reached, so nanobind and pytest cannot be installed"
    return 77
  fi
  ./scripts/python.sh
}

# What the figures and the kernels of this run are of.
machine() {
  local flag flags=""
  for flag in avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_bf16; do
    if grep -qw "$flag" /proc/cpuinfo; then flags+=" $flag"; fi
  done
  echo "machine: $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1), $(nproc) cores;${flags:- no vectors known here}"
}

# part_NAME in the background with a time limit in seconds; 124 when it was ended.
run_part() {
  local part=$1 limit=$2
  if ((limit == 0)); then
    ("part_$part")  # what a part exports is its own
    return
  fi
  set -m
  "part_$part" &
  local group=$!
  set +m
  local end=$((SECONDS + limit))
  while kill -0 "$group" 2>/dev/null; do
    if ((SECONDS >= end)); then
      kill -- -"$group" 2>/dev/null
      wait "$group" 2>/dev/null
      return 124
    fi
    sleep 1
  done
  wait "$group"
}

parts=("$@")
in_turn=""
(($#)) || parts=("${always[@]}")
if (($# == 0 && ${#turns[@]} > 0)); then
  hash=$(git rev-parse --short=8 HEAD 2>/dev/null || echo 0)
  in_turn=${turns[16#${hash:0:6} % ${#turns[@]}]}
  parts=("${always[@]}" "$in_turn")
fi

./scripts/setup.sh --check || exit 1
table=() passed=0 failed=0 skipped=0
for part in "${parts[@]}"; do
  if ! declare -F "part_$part" >/dev/null; then
    echo "check: expected parts of: ${always[*]} ${turns[*]} ${by_name[*]}, but got '$part'" >&2
    exit 2
  fi
  echo "== $part"
  start=$SECONDS limit=0
  if [[ $part == "$in_turn" ]]; then
    limit=$((60 * minutes - SECONDS))
    ((limit > 0)) || limit=1
  fi
  run_part "$part" "$limit" >"$logs/$part.log" 2>&1
  case $? in
    0)
      verdict=ok
      passed=$((passed + 1))
      grep -E '^[0-9]+% tests passed|: [0-9]+ cases passed|: no finding|^tidy:|^\| all \||^[0-9]+ passed' "$logs/$part.log"
      ;;
    77)
      verdict=skipped
      skipped=$((skipped + 1))
      tail -n 1 "$logs/$part.log"
      ;;
    124)
      verdict=unfinished
      skipped=$((skipped + 1))
      tail -n 3 "$logs/$part.log"
      ;;
    *)
      verdict=FAILED
      failed=$((failed + 1))
      grep -E 'error|warning: .*\[-W|\*\*\*Failed|FAILED' "$logs/$part.log" | head -40
      grep -E -A4 ': Failure$|^terminate called|runtime error:|ERROR: .*Sanitizer' "$logs/$part.log" | head -40
      tail -n 40 "$logs/$part.log"
      ;;
  esac
  table+=("$(printf '%-9s %-10s %5d s' "$part" "$verdict" $((SECONDS - start)))")
done
echo
machine
printf '%s\n' "${table[@]}"
if [[ -n $in_turn ]]; then
  rest=()
  for part in "${turns[@]}"; do [[ $part == "$in_turn" ]] || rest+=("$part"); done
  echo "in turn, by commit $hash: $in_turn; not run this time: ${rest[*]}"
fi
echo "check: $passed passed, $failed failed, $skipped skipped"
((failed == 0))
