"""Every test that tests/faults.md names is there: faults.py SOURCE_FOLDER [FILE]"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
page = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests/faults.md"
cases, entries = set(), set()
for source in root.glob("tests/*/*_test.cpp"):
    for suite, case in re.findall(r"^ *(?:TEST|TEST_F|TEST_P)\((\w+), (\w+)\)", source.read_text(), re.M):
        cases.add(f"{suite}.{case}")
for folder in ("examples", "consumer"):
    text = (root / "tests" / folder / "CMakeLists.txt").read_text()
    entries |= {f"{folder}.{name}" for name in re.findall(r"steer_example_test\((\w+)|NAME \w+\.(\w+)", text) for name in name if name}
    for kinds in re.findall(r"foreach\(kind IN ITEMS ([\w ]+)\)", text):
        entries |= {f"{folder}.{kind}" for kind in kinds.split()}
scripts = "".join(p.read_text() for p in root.glob("tests/*/*.py") if p.name != "faults.py" or p.parent.name == "examples")
missing, named = [], 0
for word in re.findall(r"`([^`]+)`", "\n".join(line.split("|")[2] for line in page.read_text().splitlines() if line.count("|") == 3)):
    if re.fullmatch(r"(examples|consumer)\.\w+", word):
        found = word in entries
    elif re.fullmatch(r"[A-Z]\w+\.[A-Z]\w+", word):
        found = word in cases
    elif match := re.fullmatch(r'\w+\.py: "(.+)"', word):
        found = match[1] in scripts
    else:
        continue
    named += 1
    if not found:
        missing.append(word)
for word in missing:
    print(f"{page}: expected a test but there is none of the name {word}")
print(f"{named} tests are named, {len(missing)} are missing")
sys.exit(bool(missing) or not named)
