"""Plants one small fault at a time and says which the tests do not see.

    tests/mutation/run.py [--build build/release] [--count 60] [--seed 1] [--only REGEX] [--list]

Faults are planted in the sources named in TARGETS; for each, the module's test program is built and run. A fault that
does not compile is replaced by another. A fault survives when every test passes: either a test is missing, or the
changed line does not matter (an equivalent change), and a person decides which. The tree is put back after each fault,
and when the run is interrupted. The sources must be committed.
"""
import argparse
import pathlib
import random
import re
import subprocess
import sys
import time

# Sources and the test program that guards them.
TARGETS = {
    "src/steering/**/*.cpp": "test_steering",
    "src/steering/**/*.hpp": "test_steering",
    "src/model/session.cpp": "test_model",
    "src/stats/*.cpp": "test_stats",
    "src/eval/run/answer.cpp": "test_eval",
    "src/eval/report/analysis.cpp": "test_eval",
    "src/eval/report/tradeoff.cpp": "test_eval",
    "src/generate/score.cpp": "test_generate",
    "src/generate/sampler.cpp": "test_generate",
}

# What people get wrong: (what it is called, pattern, replacement).
FAULTS = [
    ("off by one at a bound", r"(?<![<>=\-])<(?![<=])(?= )", "<="),
    ("off by one at a bound", r"(?<![<>=\-])>(?![>=])(?= )", ">="),
    ("bound let out", r" <= ", " < "),
    ("bound let out", r" >= ", " > "),
    ("comparison turned round", r" == ", " != "),
    ("comparison turned round", r" != ", " == "),
    ("sign", r"(?<=[\w)\]]) \+ (?=[\w(])", " - "),
    ("sign", r"(?<=[\w)\]]) - (?=[\w(])", " + "),
    ("factor", r"(?<=[\w)\]]) \* (?=[\w(])", " / "),
    ("factor", r"(?<=[\w)\]]) / (?=[\w(])", " * "),
    ("and for or", r" && ", " || "),
    ("or for and", r" \|\| ", " && "),
    ("negation lost", r"(?<=[(\s])!(?=[\w(])", ""),
    ("true for false", r"\bfalse\b", "true"),
    ("false for true", r"\btrue\b", "false"),
    ("minimum for maximum", r"std::max\b", "std::min"),
    ("maximum for minimum", r"std::min\b", "std::max"),
    ("next number", r"(?<![\w.])1(?![\w.])", "2"),
    ("next number", r"(?<![\w.])0(?![\w.])", "1"),
    ("sum lost", r" \+= ", " = "),
    ("step left out", r"^(\s+)[\w.\->\[\]]+\([^;{}]*\);$", r"\1;"),
]
SKIP = re.compile(r"^\s*(//|#|require\(|static_assert|template|using |namespace |extern )|\boperator\b|fmt::format")


def candidates(root, only):
    found = []
    for pattern, program in TARGETS.items():
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            if only and not re.search(only, name):
                continue
            for number, line in enumerate(path.read_text().splitlines()):
                code = line.split("//")[0]
                if SKIP.search(code) or '"' in code:
                    continue
                for what, old, new in FAULTS:
                    for match in re.finditer(old, code):
                        changed = line[:match.start()] + match.expand(new) + line[match.end():]
                        if changed != line:
                            found.append((name, number, what, changed, program))
    return found


def run(command, timeout):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout).returncode
    except subprocess.TimeoutExpired:
        return 124


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="only sources whose name matches")
    parser.add_argument("--list", action="store_true", help="print the faults, plant none")
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    found = candidates(root, options.only)
    if not found:
        sys.exit("mutation: no source matches")
    # Each file gets its share, however long it is: first a file, then a line of it.
    draw = random.Random(options.seed)
    by_file = {}
    for fault in found:
        by_file.setdefault(fault[0], []).append(fault)
    if options.list:
        for name, faults in by_file.items():
            print(f"{name}: {len(faults)} faults")
        return
    dirty = subprocess.run(["git", "-C", root, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    if dirty.stdout.strip():
        sys.exit("mutation: commit or put away your changes first")
    planted = caught = 0
    survivors = []
    while planted < options.count and by_file:
        name = draw.choice(sorted(by_file))
        faults = by_file[name]
        fault = faults.pop(draw.randrange(len(faults)))
        if not faults:
            del by_file[name]
        _, number, what, changed, program = fault
        path = root / name
        original = path.read_text()
        lines = original.splitlines(keepends=True)
        before = lines[number].rstrip("\n")
        lines[number] = changed + "\n"
        start = time.monotonic()
        try:
            path.write_text("".join(lines))
            if run(["ninja", "-C", options.build, program], 1200) != 0:
                continue
            planted += 1
            seen = run([f"{options.build}/tests/{program}", "--gtest_brief=1", "--gtest_fail_fast"], 900) != 0
        finally:
            path.write_text(original)
        caught += seen
        verdict = "caught" if seen else "SURVIVED"
        print(f"{verdict:8} {name}:{number + 1} {what} ({time.monotonic() - start:.0f} s)\n    - {before.strip()}\n"
              f"    + {changed.strip()}", flush=True)
        if not seen:
            survivors.append(f"{name}:{number + 1} {what}")
    print(f"mutation: {caught} caught, {len(survivors)} survived")


main()
