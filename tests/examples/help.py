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
    # CLI11 writes, under a heading, "  --name TYPE=default   the explanation", the explanation on lines of its own where
    # there is no room beside the first part.
    listed, lines = False, text.splitlines()
    for i, line in enumerate(lines):
        if re.match(r"(Options|Positionals|\[Option Group: .*\]):?$", line.strip()):
            listed = True
        words = line.split()
        if not listed or not re.match(r"  [^\s\[]", line) or line.strip().endswith(":"):
            continue
        is_type = len(words) > 1 and re.match(r"(TEXT|INT|UINT|FLOAT|ENUM|BOOLEAN|\[)", words[1])
        explained = len(words) > (2 if is_type else 1)
        below = i + 1 < len(lines) and re.match(r"\s{10,}\S", lines[i + 1])
        if not explained and not below:
            found.append(f"no explanation of: {line.strip()}")
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
