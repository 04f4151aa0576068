"""Whether a program takes std::filesystem from the compiler's own standard library: libtorch gives away an older one.

usage: standard_library.py NM PROGRAM
"""
import subprocess
import sys


def main():
    nm, program = sys.argv[1:]
    table = subprocess.run([nm, "-D", "--undefined-only", program], check=True, capture_output=True, text=True).stdout
    names = [line.split()[-1] for line in table.splitlines() if "_ZNSt10filesystem" in line or "_ZNKSt10filesystem" in line]
    # Only the compiler's own has versions.
    strangers = [name for name in names if "@GLIBCXX" not in name]
    for name in strangers:
        print(f"{program}: {name} comes from a library that is not the compiler's own (link libstdc++ before libtorch)")
    print(f"{len(names)} functions of std::filesystem, {len(strangers)} not the compiler's own")
    return 1 if strangers or not names else 0


if __name__ == "__main__":
    sys.exit(main())
