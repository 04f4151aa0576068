"""Plants small faults and says which of them the tests do not see.

    tests/mutation/run.py [--build build/release] [--count 60] [--seed 1] [--only REGEX] [--list]

Faults are what people get wrong: a bound off by one, a sign, and for or, a step left out, in the sources named in
TARGETS. All of them are planted at once, each behind a switch (fault.hpp), and the tests are built once; a run of a test
program then has one of them switched on, STEER_FAULT=<number> in its environment. A fault that does not compile is taken
out again. One survives when every test passes: either a test is missing, or what changed does not matter, and a person
decides which: SURVIVORS.md says so of those that were looked at. The tree is put back at the end, and when the run is
interrupted. The sources must be committed.
"""
import argparse
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

# Sources and the test program that guards them.
TARGETS = {
    "src/steering/*.cpp": "test_steering",
    "src/steering/instruction.hpp": "test_steering",
    "src/steering/kernels-inl.hpp": "test_steering",
    "src/steering/edits/*.cpp": "test_steering",
    "src/model/session*.cpp": "test_model",
    "src/model/hook_table.cpp": "test_model",
    "src/stats/*.cpp": "test_stats",
    "src/eval/run/answer*.cpp": "test_eval",
    "src/eval/run/final_letter.cpp": "test_eval",
    "src/eval/report/analysis.cpp": "test_eval",
    "src/eval/report/tradeoff.cpp": "test_eval",
    "src/generate/score.cpp": "test_generate",
    "src/generate/sampler.cpp": "test_generate",
}
# Programs of whose tests only some are about these sources.
FILTERS = {"test_eval": "*Answer*:*Letter*:Paper*:Report*:Analys*:Tradeoff*:Arms*"}

LEFT, RIGHT = r"(?<=[\w)\]]) ", r" (?=[\w(])"


def between(what, operator, fault, closing=None):
    return what, LEFT + re.escape(operator) + RIGHT, f" {operator} steer_fault::{fault}{{@}} {closing or operator} "


# What it is called, the pattern, and what stands in its place; @ is the fault's number.
FAULTS = [
    between("off by one at a bound", "<", "less", ">"),
    between("off by one at a bound", ">", "greater", ">"),
    between("bound let out", "<=", "less_equal"),
    between("bound let out", ">=", "greater_equal"),
    between("comparison turned round", "==", "equal"),
    between("comparison turned round", "!=", "unequal"),
    between("sign", "+", "plus"),
    between("sign", "-", "minus"),
    between("factor", "*", "times"),
    between("factor", "/", "over"),
    ("negation lost", r"(?<=[(\s])!(?=[\w(])", "steer_fault::not_lost{@} % !"),
    ("true for false", r"(?<![\w:/*])(true|false)\b(?!\*)", r"steer_fault::flip(@, \1)"),
    ("minimum for maximum", r"std::max\(", "steer_fault::larger{@}("),
    ("maximum for minimum", r"std::min\(", "steer_fault::smaller{@}("),
    ("next number", r"(?<![\w.\-])([01])(?![\w.'])", r"steer_fault::next(@, \1)"),
    ("sum lost", r" \+= ", " += steer_fault::sum_lost{@} + "),
    ("step left out", r"^(\s+)([\w.>\-\[\]]+\([^;{}]*\);)$", r"\1{ if (!steer_fault::on(@)) \2 }"),
]
SKIP = re.compile(r"^\s*(//|#|static_assert|template|using |namespace |extern |case )|\boperator\b|\bconstexpr\b|format_text\(")


def junction(code, at, operator):
    """`A && B` around a place as a choice between && and ||, or nothing where the line does not hold all of it."""
    stops = ["&&", "||"] if operator == "&&" else ["||"]

    def edge(step):
        depth, place = 0, at if step < 0 else at + 2
        while 0 <= place - (step < 0) < len(code):
            char = code[place - 1] if step < 0 else code[place]
            if char in (")]}" if step < 0 else "([{"):
                depth += 1
            elif char in ("([{" if step < 0 else ")]}"):
                if depth == 0:
                    return place
                depth -= 1
            elif depth == 0:
                around = code[place - 2:place] if step < 0 else code[place:place + 2]
                if char in ",;?:" or around in stops:
                    return place
                if step < 0 and re.search(r"(return |[^=!<>]= )$", code[:place]):
                    return place
            place += step
        return None

    begin, end = edge(-1), edge(+1)
    if begin is None or end is None:
        return None
    a, b = code[begin:at].strip(), code[at + 2:end].strip()
    if not a or not b or "{" in a + b:
        return None
    other = "||" if operator == "&&" else "&&"
    return code[:begin] + f" (steer_fault::on(@) ? bool(({a}) {other} ({b})) : bool(({a}) {operator} ({b}))) " + code[end:]


def candidates(root, only):
    """By source: [(line from 0, what, the line with the fault in it)], and the program that guards it."""
    found = {}
    for pattern, program in TARGETS.items():
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            if only and not re.search(only, name):
                continue
            faults = []
            for number, line in enumerate(path.read_text().splitlines()):
                code = line.split("//")[0].rstrip()
                if SKIP.search(code) or '"' in code or "'" in code:
                    continue
                for what, old, new in FAULTS:
                    for match in re.finditer(old, code):
                        faults.append((number, what, code[:match.start()] + match.expand(new) + code[match.end():]))
                for what, operator in (("and for or", "||"), ("or for and", "&&")):
                    for match in re.finditer(re.escape(operator), code):
                        if changed := junction(code, match.start(), operator):
                            faults.append((number, what, changed))
            if faults:
                found[name] = (faults, program)
    return found


def draw(found, count, seed):
    """Each source has its share, however long it is: first a source, then a line of it, at most one fault a line."""
    rng = random.Random(seed)
    left = {name: list(faults) for name, (faults, _) in found.items()}
    drawn = []
    while left and len(drawn) < count:
        name = rng.choice(sorted(left))
        number, what, changed = left[name].pop(rng.randrange(len(left[name])))
        left[name] = [fault for fault in left[name] if fault[0] != number]
        if not left[name]:
            del left[name]
        drawn.append((name, number, what, changed, found[name][1]))
    return drawn


def plant(root, originals, faults):
    for name, text in originals.items():
        lines = text.splitlines()
        for number, (source, line, _, changed, _) in faults.items():
            if source == name:
                lines[line] = changed.replace("@", str(number))
        header = f'#include "{root}/tests/mutation/fault.hpp"'
        planted = "\n".join([header, *lines]) + "\n"
        path = root / name
        if path.read_text() != planted:
            path.write_text(planted)


def build(root, folder, originals, faults):
    """Builds with all faults in place, taking out those that do not compile."""
    programs = sorted({fault[4] for fault in faults.values()})
    for _ in range(8):
        plant(root, originals, faults)
        done = subprocess.run(["ninja", "-C", folder, "-k", "0", *programs], capture_output=True, text=True)
        if done.returncode == 0:
            return
        blamed = set()
        for match in re.finditer(r"(src/[\w/.\-]+):(\d+):(?:\d+:)?\s+(?:error|\s*required from)", done.stdout + done.stderr):
            blamed |= {number for number, fault in faults.items()
                       if fault[0] == match.group(1) and fault[1] == int(match.group(2)) - 2}
        if not blamed:
            sys.exit("mutation: it does not build, and no fault is to blame:\n" + done.stdout[-4000:])
        print(f"mutation: {len(blamed)} faults do not compile", flush=True)
        for number in blamed:
            del faults[number]
    sys.exit("mutation: it does not build")


SLOW_MS = 500


def measure(folder, program):
    """How long the tests take without a fault, and filters for the quick ones, which go first, and the others."""
    start = time.monotonic()
    chosen = FILTERS.get(program, "*")
    done = subprocess.run([f"{folder}/tests/{program}", f"--gtest_filter={chosen}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"mutation: {program} fails without any fault")
    slow = [name for name, ms in re.findall(r"\[       OK \] (\S+?),? .*?\((\d+) ms\)", done.stdout) if int(ms) > SLOW_MS]
    filters = [f"{chosen}-{':'.join(slow)}", ":".join(slow)] if slow else [chosen]
    return time.monotonic() - start, filters


def passes(folder, program, filters, number, timeout):
    for some in filters:
        command = [f"{folder}/tests/{program}", "--gtest_brief=1", "--gtest_fail_fast", f"--gtest_filter={some}"]
        environment = {**os.environ, "STEER_FAULT": str(number)}
        try:
            if subprocess.run(command, capture_output=True, timeout=timeout, env=environment).returncode:
                return False
        except subprocess.TimeoutExpired:
            return False
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="only sources whose name matches")
    parser.add_argument("--list", action="store_true", help="print how many faults there are, plant none")
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    found = candidates(root, options.only)
    if not found:
        sys.exit("mutation: no source matches")
    if options.list:
        for name, (faults, program) in found.items():
            print(f"{name}: {len(faults)} faults, {program}")
        return
    if subprocess.run(["git", "-C", root, "status", "--porcelain", "--untracked-files=no"], capture_output=True).stdout:
        sys.exit("mutation: commit or put away your changes first")
    for stop in (signal.SIGTERM, signal.SIGINT):  # the latter is ignored in the background of a shell
        signal.signal(stop, lambda *_: sys.exit(1))
    # More than asked for: some will not compile.
    faults = dict(enumerate(draw(found, options.count * 5 // 4, options.seed), 1))
    originals = {name: (root / name).read_text() for name in {fault[0] for fault in faults.values()}}
    survivors = []
    try:
        build(root, options.build, originals, faults)
        known = {program: measure(options.build, program) for program in sorted({f[4] for f in faults.values()})}
        for number, (name, line, what, changed, program) in list(faults.items())[:options.count]:
            seconds, filters = known[program]
            seen = not passes(options.build, program, filters, number, 60 + 5 * seconds)
            before = originals[name].splitlines()[line].strip()
            print(f"{'caught' if seen else 'SURVIVED':8} {name}:{line + 1} {what}\n    {before}\n"
                  f"    {changed.strip().replace('@', str(number))}", flush=True)
            if not seen:
                survivors.append(number)
    finally:
        for name, text in originals.items():
            (root / name).write_text(text)
    total = min(options.count, len(faults))
    print(f"mutation: {total - len(survivors)} caught, {len(survivors)} survived")


main()
