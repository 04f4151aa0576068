#!/usr/bin/env python3
"""Which lines the tests ran, by module: coverage.py BUILD_FOLDER   (after the tests of the preset coverage)

Prints a table for docs/coverage.md, and names every file of src of which no line ran.
"""
import collections
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile


def counts(build, root):
    """{file under src: {line: largest count}} over all objects."""
    lines = collections.defaultdict(dict)
    data = sorted(build.rglob("*.gcno"))
    with tempfile.TemporaryDirectory() as scratch:
        for note in data:
            if "/steer_" not in str(note):
                continue  # the tests' own lines
            for old in pathlib.Path(scratch).iterdir():
                old.unlink()
            subprocess.run(["gcov", "--json-format", str(note)], cwd=scratch, capture_output=True, check=True)
            for written in pathlib.Path(scratch).glob("*.gz"):
                for file in json.loads(gzip.open(written).read())["files"]:
                    path = pathlib.Path(file["file"])
                    path = path if path.is_absolute() else build / path
                    try:
                        name = path.resolve().relative_to(root / "src")
                    except ValueError:
                        continue
                    for line in file["lines"]:
                        known = lines[str(name)]
                        known[line["line_number"]] = max(known.get(line["line_number"], 0), line["count"])
    return lines


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    root = pathlib.Path(__file__).resolve().parent.parent
    lines = counts(build, root)
    if not lines:
        sys.exit(f"coverage: expected counts under {build} but found none; build and run the preset coverage first")
    modules = collections.defaultdict(lambda: [0, 0, 0])
    for name, known in lines.items():
        row = modules[name.split("/")[0]]
        row[0] += 1
        row[1] += len(known)
        row[2] += sum(count > 0 for count in known.values())
    print("| module | files | lines | run |\n|---|---|---|---|")
    total = [sum(column) for column in zip(*modules.values())]
    for module, (files, all_lines, run) in [*sorted(modules.items()), ("all", total)]:
        print(f"| {module} | {files} | {all_lines:,} | {100 * run / all_lines:.1f} % |")
    unseen = sorted(name for name, known in lines.items() if known and not any(known.values()))
    print(f"\n{len(unseen)} files of which no line ran: {', '.join(unseen) or 'none'}")
    low = sorted((sum(c > 0 for c in k.values()) / len(k), n) for n, k in lines.items() if k)[:12]
    print("lowest: " + ", ".join(f"{name} {100 * share:.0f} %" for share, name in low))


main()
