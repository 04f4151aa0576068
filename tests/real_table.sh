#!/usr/bin/env bash
# usage: tests/real_table.sh BUILD_DIR [TEST_DIR]
# Every case of the folder that STEER_REAL_DIR names (default ../shared/fixtures/real) with its verdict, "ok" or
# "WRONG", and what the library made of it; then how many of each kind passed. Fails where one did not.
set -euo pipefail
build=$1
cd "$(dirname "$0")/.."
result=0
table=$(mktemp)
trap 'rm -f "$table"' EXIT
for program in "$build"/tests/test_*; do
  STEER_REAL_TABLE=1 "$program" --gtest_brief=1 --gtest_filter='Real*:RepliesOfJudges*' >>"$table" 2>&1 || result=1
done
grep -E '^(ok|WRONG) ' "$table" || true
grep -E '^(real \(|judges: )|Failure$|FAILED' "$table" || true
exit $result
