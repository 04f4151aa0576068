#!/usr/bin/env python3
"""Writes src/text/unicode_tables.inc: the Unicode data that tokenizers depend on.

    pip install tokenizers && python3 scripts/make_unicode_tables.py > src/text/unicode_tables.inc

Character classes are those of the regular expression engine that Hugging Face's tokenizers uses (Oniguruma), asked
code point by code point: they are newer than PCRE2's on most systems, and a tokenizer must agree with the former.
Decompositions are tokenizers' own; combining classes and compositions are those of Python's unicodedata that
tokenizers knows too.
"""
import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

from c_tables import code_ranges, lines

CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    """Code points that the engine counts into a class: those that Split removes."""
    split, rest = pre_tokenizers.Split(Regex(pattern), "removed"), set()
    for i in range(0, len(CODES), 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, CODES[i:i + 4096]))):
            rest.update(map(ord, piece))
    return set(CODES) - rest


def table(name, codes, comment):
    print(f"\n// {comment}")
    code_ranges(name, sorted(codes))


print("// Made by scripts/make_unicode_tables.py; do not edit. Unicode data: unicode.org/license (Unicode License v3).")
table("word_ranges", members(r"\w"), "Word characters.")
for name in ("L", "N", "P", "M", "S", "Lu", "Ll", "Lo", "Lm", "Nd", "No"):
    old = {c for c in CODES if unicodedata.category(chr(c)).startswith(name)}
    new = members(r"\p{%s}" % name)
    assert old <= new, name
    table("added_" + name, new - old, r"\p{%s} beyond Unicode %s." % (name, unicodedata.unidata_version))

# Normalisation. Hangul is computed, not stored. Codes whose single-character results differ between unicodedata and
# tokenizers follow tokenizers.
forms = {form: getattr(normalizers, form)() for form in ("NFC", "NFD", "NFKC", "NFKD")}
hangul = range(0xAC00, 0xD7A4)
canonical, compatible = {}, {}
for c in CODES:
    if c in hangul:
        continue
    for form, target in (("NFD", canonical), ("NFKD", compatible)):
        text = forms[form].normalize_str(chr(c))
        if text != chr(c):
            target[c] = text
compatible = {c: t for c, t in compatible.items() if canonical.get(c) != t}
# A mark that tokenizers does not know (its Unicode version is older) is not moved before U+0345, the highest class.
classes = {c: unicodedata.combining(chr(c)) for c in CODES if unicodedata.combining(chr(c))
           and (c == 0x345 or forms["NFD"].normalize_str("a\u0345" + chr(c)) != "a\u0345" + chr(c))}
pairs = []
for c in CODES:
    parts = unicodedata.decomposition(chr(c)).split()
    if len(parts) == 2 and not parts[0].startswith("<") and c not in hangul:
        a, b = (int(p, 16) for p in parts)
        if forms["NFC"].normalize_str(chr(a) + chr(b)) == chr(c):
            pairs.append((a, b, c))


def expansions(name, table_, comment):
    print(f"\n// {comment} Code, then where its expansion begins in {name}_codes; a last row marks the end.")
    flat, rows = [], []
    for c, text in sorted(table_.items()):
        rows.append("{0x%X, %d}" % (c, len(flat)))
        flat += [ord(x) for x in text]
    rows.append("{0x110000, %d}" % len(flat))
    print(f"inline constexpr Expansion {name}[] = {{")
    lines(rows)
    print(f"}};\ninline constexpr char32_t {name}_codes[] = {{")
    lines("0x%X" % c for c in flat)
    print("};")


expansions("canonical", canonical, "Full canonical decompositions.")
expansions("compatible", compatible, "Full compatibility decompositions that differ from the canonical ones.")
print("\n// Canonical combining classes other than 0, by range.\ninline constexpr ClassRange combining_classes[] = {")
out = []
for c, k in sorted(classes.items()):
    if out and out[-1][1] == c - 1 and out[-1][2] == k:
        out[-1][1] = c
    else:
        out.append([c, c, k])
lines("{0x%X, 0x%X, %d}" % tuple(r) for r in out)
print("};\n\n// Canonical compositions: first, second, composite; sorted.\ninline constexpr Composition compositions[] = {")
lines("{0x%X, 0x%X, 0x%X}" % p for p in sorted(pairs))
print("};")
print(len(canonical), len(compatible), len(out), len(pairs), file=sys.stderr)
