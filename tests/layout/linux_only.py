"""Checks that what only Linux has stands in one file each: linux_only.py SOURCE_TREE

docs/versions.md lists them: porting is those files. A new use of one of them elsewhere belongs into its file.
"""
import pathlib
import re
import sys

PLACES = {
    r"/proc/self/maps": "src/sae/mapped_rows.cpp",
    r"/proc/meminfo": "src/eval/run/plan_experiment.cpp",
    r"sched_getaffinity|cgroup|proc/self/(mountinfo|cgroup)": "src/core/available_cores.cpp",
    r"posix_fallocate": "src/io/atomic_file.cpp",
    r"eventfd": "src/serve/http_listener.cpp",
    r"\bepoll_|\binotify_|\bsignalfd|\btimerfd|\bgettid\(|\bprctl\(|\bO_TMPFILE\b|\bmremap\(|\bsendfile\(": None,
}


def main():
    root = pathlib.Path(sys.argv[1])
    files = [p for p in sorted([*root.glob("include/**/*.hpp"), *root.glob("src/**/*.[hc]pp")])
             if "src/model/cuda" not in str(p)]
    page = root / "docs/versions.md"
    listed = page.read_text() if page.exists() else " ".join(place for place in PLACES.values() if place)
    problems = [f"docs/versions.md does not list {place}" for place in PLACES.values() if place and place not in listed]
    for path in files:
        name = str(path.relative_to(root))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern, place in PLACES.items():
                if re.search(pattern, line) and (place is None or name.split(".")[0] != place.split(".")[0]):
                    problems.append(f"{name}:{number}: belongs into {place or 'a file of its own'}: {line.strip()}")
    print("\n".join(problems))
    print(f"{len(files)} files, {len(problems)} problems")
    sys.exit(bool(problems) or not files)


main()
