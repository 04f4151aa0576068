"""What every program says of itself: help.py PROGRAM...

--help ends well and says in a sentence what the program does, and every option it lists is explained.
"""
import re
import subprocess
import sys


def faults(program):
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=120)
    text = done.stdout
    if done.returncode != 0:
        return [f"--help ends with {done.returncode}: {done.stderr[:200]}"]
    found = []
    if len(text.split("Usage:")[0].split()) < 4:
        found.append("--help does not say what the program does")
    # CLI11 writes "  --name TYPE [default] ...  the explanation", and the explanation on the next line where the first
    # is full.
    lines = text.splitlines()
    for i, line in enumerate(lines):
        option = re.match(r"  (\S.*)$", line)
        if not option or line.startswith("   ") or line.strip().endswith(":"):
            continue
        first = option.group(1)
        explained = re.search(r"\s{2,}\S*[A-Za-z]", first)
        below = i + 1 < len(lines) and re.match(r"\s{10,}\S", lines[i + 1])
        named = first.startswith("-") or first.split()[0].isidentifier()
        if named and not explained and not below:
            found.append(f"no explanation of: {first}")
    return found


def main():
    count = 0
    for program in sys.argv[1:]:
        for fault in faults(program):
            print(f"{program.rsplit('/', 1)[-1]}: {fault}")
            count += 1
    print(f"{len(sys.argv) - 1} programs, {count} faults")
    sys.exit(count > 0)


main()
