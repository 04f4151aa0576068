"""Compiles every file of a folder on its own, without the precompiled header: compile_alone.py FOLDER -- COMPILER
FLAGS... Headers are included from the folder, sources are compiled as they are."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    command = sys.argv[sys.argv.index("--") + 1:]
    sources = sorted(path.relative_to(root) for path in root.rglob("*.cpp"))
    files = sources or sorted(path.relative_to(root) for path in root.rglob("*.hpp"))
    if not files:
        sys.exit(f"no headers or sources under {root}")

    def compiles(file):
        if sources:
            return subprocess.run([*command, str(root / file)], capture_output=True, text=True)
        with tempfile.NamedTemporaryFile("w", suffix=".cpp") as source:
            source.write(f"#include <{file}>\n")
            source.flush()
            return subprocess.run([*command, f"-I{root}", source.name], capture_output=True, text=True)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for file, result in zip(files, pool.map(compiles, files)):
            if result.returncode:
                failed += 1
                print(f"{file} does not compile alone:\n{result.stderr[:2000]}")
    print(f"{len(files)} files, {failed} do not compile alone")
    sys.exit(failed > 0)


main()
