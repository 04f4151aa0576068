#!/usr/bin/env python3
"""Writes src/text/jinja/case_tables.inc: what Python's str methods know of code points beyond ASCII.

    python3 scripts/make_case_tables.py > src/text/jinja/case_tables.inc
"""
import unicodedata

from c_tables import code_ranges, lines

CODES = [c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]


def table(name, member):
    """A table of the code points for which `member` holds."""
    print()
    code_ranges(name, (c for c in CODES if member(chr(c))))


def mapping(name, change):
    """Runs of code points whose change is one code point at one distance, and the changes of several code points."""
    runs, many = [], []
    for c in CODES:
        to = change(chr(c))
        if to == chr(c):
            continue
        if len(to) > 1:
            many.append((c, *map(ord, to), *[0] * (3 - len(to))))
            continue
        distance = ord(to) - c
        last = runs[-1] if runs else None
        if last and last[2] == distance and c - last[1] in (1, 2) and last[3] in (0, c - last[1]):
            last[1], last[3] = c, c - last[1]
        else:
            runs.append([c, c, distance, 0])
    print(f"\ninline constexpr CaseRun {name}_runs[] = {{")
    lines("{0x%X, 0x%X, %d, %d}" % (a, b, d, s or 1) for a, b, d, s in runs)
    print(f"}};\ninline constexpr CaseExpansion {name}_many[] = {{")
    lines("{0x%X, {0x%X, 0x%X, 0x%X}}" % m for m in many)
    print("};")


def is_cased(c):
    return c.lower() != c or c.upper() != c or c.title() != c or c.islower() or c.isupper()


def is_case_ignorable(c):
    """Python looks through these for the letters around a capital sigma: then it becomes a final one."""
    return "A\u03a3".lower() == ("A" + c + "\u03a3").lower().replace(c.lower(), "") and not is_cased(c)


print("// Made by scripts/make_case_tables.py from Python's own str methods (Unicode %s); do not edit." % unicodedata.unidata_version)
print("// Unicode data: unicode.org/license (Unicode License v3).")
mapping("upper", str.upper)
mapping("lower", str.lower)
mapping("title", str.title)
table("cased", is_cased)
table("case_ignorable", is_case_ignorable)
table("lower_case", str.islower)
table("upper_case", str.isupper)
table("alphabetic", str.isalpha)
table("decimal_digits", str.isdecimal)
table("digits", str.isdigit)
table("numeric", str.isnumeric)
table("unprintable", lambda c: not c.isprintable())
