#!/usr/bin/env python3
"""Which lines the tests ran, by module: coverage.py BUILD_FOLDER   (after the tests of the preset asan)

Prints a table, and names every file of src of which no line ran.
"""
import collections
import json
import pathlib
import shutil
import subprocess
import sys


def tool(name):
    """LLVM's program of that name, or Debian's, which carries the version in its name."""
    for candidate in (f"{name}-16", name, *(f"{name}-{version}" for version in range(22, 14, -1))):
        if shutil.which(candidate):
            return candidate
    sys.exit(f"coverage: {name} is not here; scripts/setup.sh --check installs it (Debian's package llvm-16)")


def counts(build, root):
    """{file under src: (lines, lines run)} over all test programs."""
    raw = sorted((build / "profile").glob("*.profraw"))
    programs = sorted(p for p in (build / "tests").glob("test_*") if p.is_file() and p.suffix == "")
    if not raw or not programs:
        sys.exit(f"coverage: expected {build}/profile/*.profraw and tests/test_* but found {len(raw)} and {len(programs)}; "
                 "build the preset asan and run its tests first")
    merged = build / "profile" / "all.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", merged, *raw], check=True)
    objects = [word for program in programs[1:] for word in ("-object", program)]
    written = subprocess.run([tool("llvm-cov"), "export", "-summary-only", f"-instr-profile={merged}", programs[0], *objects,
                              "-ignore-filename-regex=^/usr/|site-packages"], check=True, capture_output=True).stdout
    files = {}
    for file in json.loads(written)["data"][0]["files"]:
        path = pathlib.Path(file["filename"])
        path = (path if path.is_absolute() else build / path).resolve()
        if path.is_relative_to(root / "src"):
            lines = file["summary"]["lines"]
            files[str(path.relative_to(root / "src"))] = (lines["count"], lines["covered"])
    return files


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    root = pathlib.Path(__file__).resolve().parent.parent
    files = counts(build, root)
    modules = collections.defaultdict(lambda: [0, 0, 0])
    for name, (lines, run) in files.items():
        row = modules[name.split("/")[0]]
        for i, number in enumerate((1, lines, run)):
            row[i] += number
    print("| module | files | lines | run |\n|---|---|---|---|")
    total = [sum(column) for column in zip(*modules.values())]
    for module, (number, lines, run) in [*sorted(modules.items()), ("all", total)]:
        print(f"| {module} | {number} | {lines:,} | {100 * run / max(lines, 1):.1f} % |")
    sources = {str(p.relative_to(root / "src")) for p in (root / "src").rglob("*.cpp")}
    unseen = sorted([name for name, (lines, run) in files.items() if lines and not run])
    print(f"\n{len(unseen)} files of which no line ran: {', '.join(unseen) or 'none'}")
    print(f"in no test program: {', '.join(sorted(sources - set(files))) or 'none'}")
    low = sorted((run / lines, name) for name, (lines, run) in files.items() if lines)[:12]
    print("lowest: " + ", ".join(f"{name} {100 * share:.0f} %" for share, name in low))


main()
