"""Runs what the pages show: console.py ROOT PROGRAMS [--write] PAGE...

In a ```console block, a line "$ COMMAND" is run in ROOT with the folder PROGRAMS first on the PATH, and the lines up to
the next one are what it must print (stdout; a line "..." stands for any lines). Words must be equal, numbers near: other
processors round elsewhere. In a page whose first ```cpp block is a program, a plain ``` block after it is what that
program (PROGRAMS/../tests/docs/doc_PAGE_1) prints, line breaks aside. --write puts in what was printed.
"""
import difflib
import os
import pathlib
import re
import subprocess
import sys

CONSOLE = re.compile(r"^```console\n(.*?)^```", re.M | re.S)
PROGRAM = re.compile(r"^```cpp\n(?:(?!^```).)*int main.*?^```\n(.*?)^```\n(.*?)^```", re.M | re.S)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def near(shown, printed):
    """Equal but for numbers, which may differ by a twentieth."""
    if NUMBER.split(" ".join(shown.split())) != NUMBER.split(" ".join(printed.split())):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed))
    return all(abs(float(a) - float(b)) <= 0.05 * max(1.0, abs(float(a)), abs(float(b))) for a, b in pairs)


def matches(shown, printed):
    """Whether the printed lines are the shown ones, where "..." is any number of lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(matches(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and near(shown[0], printed[0]) and matches(shown[1:], printed[1:])


class Runner:
    def __init__(self, root, programs, write):
        self.root, self.programs, self.write = root, programs, write
        self.env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_WAIT_POLICY": "passive"}
        self.runs, self.faults = 0, []

    def output(self, command):
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=self.root, env=self.env, text=True,
                              capture_output=True, timeout=600)
        self.runs += 1
        if done.returncode not in (0, 1) or done.returncode and not done.stdout:
            self.faults.append(f"{command}: ended with {done.returncode}: {done.stderr.strip()[:300]}")
        return [line.rstrip() for line in done.stdout.rstrip().splitlines()]

    def console(self, page, block):
        parts = re.split(r"^\$ (.*)\n", block.group(1), flags=re.M)
        text = ""
        for command, shown in zip(parts[1::2], parts[2::2]):
            printed, lines = self.output(command), [line.rstrip() for line in shown.rstrip("\n").splitlines()]
            if self.write:
                lines = lines if "..." in lines and matches(lines, printed) else printed
            elif not matches(lines, printed):
                difference = "\n".join(difflib.unified_diff(lines, printed, "shown", "printed", lineterm=""))
                self.faults.append(f"{page.name}: {command}\n{difference}")
            text += f"$ {command}\n" + "".join(line + "\n" for line in lines)
        return f"```console\n{text}```"

    def program(self, page, text):
        found = PROGRAM.search(text)
        if not found:
            return
        printed = self.output(str(self.programs.parent / "tests/docs" / f"doc_{page.stem}_1"))
        if found.group(2).split() != " ".join(printed).split():
            self.faults.append(f"{page.name}: its first program prints\n" + "\n".join(printed))


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    runner = Runner(pathlib.Path(arguments[0]).resolve(), pathlib.Path(arguments[1]).resolve(), "--write" in sys.argv)
    for name in arguments[2:]:
        page = pathlib.Path(name)
        text = page.read_text()
        written = CONSOLE.sub(lambda block: runner.console(page, block), text)
        if runner.write and written != text:
            page.write_text(written)
        runner.program(page, text)
    print("\n".join(runner.faults))
    print(f"{runner.runs} commands of {len(arguments) - 2} pages, {len(runner.faults)} faults")
    sys.exit(bool(runner.faults) or not runner.runs)


main()
