#!/usr/bin/env python3
"""Writes tests/data/text/jinja.jsonl: what jinja2 makes of constructs beyond those of published templates.

    pip install transformers jinja2 && python3 tests/text/make_jinja_cases.py > tests/data/text/jinja.jsonl

The first line holds the variables that all templates see, every other one {"template", "text"}, or "why" in place of
text where jinja2 raises. The environment is the one transformers renders chat templates in, its clock fixed to
2026-07-01 12:34:56.
"""
import datetime
import json
import re

import transformers.utils.chat_template_utils as ctu


class Fixed(datetime.datetime):
    moment = (2026, 7, 1, 12, 34, 56)

    @classmethod
    def now(cls, tz=None):
        return cls(*cls.moment)


ctu.datetime = Fixed

TALK = [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "What's \"up\"?\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nNothing."}, {"role": "user", "content": ""}]
V = {"messages": TALK, "t": True, "f": False, "n": None, "i": 7, "x": 2.5, "s": "héLLo wörld", "l": [3, 1, 2], "e": [],
     "d": {"b": 1, "a": [1, {"k": None}], "C": "z"}, "people": [{"name": "Bo", "age": 5, "c": {"y": 1}},
     {"name": "al", "age": 3, "c": {"y": 2}}, {"name": "Cy", "age": 5, "c": {"y": 3}}], "words": ["b", "A", "a", "B", "c"]}

VALUES = ["none", "true", "false", "0", "-1", "7", "1.0", "-0.0", "1e16", "1e15", "123456789.125", "1e-4", "1e-5", "0.1 + 0.2", "1.5e300 * 1e10",
          "''", "'a'", "'it\\'s'", "'\"'", "'\\'\"'", "'a\\\\b'", "'\\n\\t\\x01\\u00e9\\u2028\\U0001F600'", "[]", "[1, 'a', none]", "()", "(1,)",
          "(1, 2)", "{}", "{'a': 1, 2: 'b', none: [1]}", "range(3)", "range(1, 9, 3)", "missing", "d.items()", "d.keys()", "d.values()", "l", "d",
          "namespace(a=1)", "'é'", "'<b>'|safe", "[('<'|e)]", "[missing]"]

CASES = []


def case(template, **extra):
    CASES.append((template, {**V, **extra}))


def expressions(*texts):
    for text in texts:
        case("{{ " + text + " }}")


# What values print as, are true of, and answer to tests.
for v in VALUES:
    expressions(v, f"({v})|string|length", f"1 if ({v}) else 0", f"not ({v})", f"({v}) ~ '|'", f"[{v}]", f"({v})|list", f"({v})|length",
                f"({v})|tojson", f"({v})|int", f"({v})|float", f"({v})|default('D')", f"({v})|default('D', true)", f"({v})|first", f"({v})|last",
                f"({v})|join(',')", f"({v})|reverse|list", f"({v})|upper", f"({v})|trim", f"({v}) + 1", f"({v}) * 2", f"({v}) == 1", f"({v}) < 2",
                f"1 in ({v})", f"({v}) in [1, '', none]", f"({v}).a", f"({v})['a']", f"({v})[0]", f"({v})[-1]",
                f"-({v})", f"({v})|abs", f"({v})|round(1)", f"({v})|e", f"({v})|tojson(indent=1)")
    if v[0] in "'[(rmls" and v != "missing":  # jinja2 folds constants, so other literals cut so are not what variables are
        expressions(f"({v})[1:]", f"({v})[::-1]")
    for test in ("defined", "none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "iterable", "sequence", "callable",
                 "escaped", "lower", "upper", "odd", "even", "in [1, 'a']", "eq 1", "ne 1", "lt 2", "ge 1", "divisibleby 2"):
        expressions(f"({v}) is {test}", f"({v}) is not {test}")

# Operators.
NUMBERS = ["0", "1", "-7", "7", "2", "-2", "2.5", "-0.5", "true", "1e3", "'a'", "none", "[1]"]
for a in NUMBERS:
    for b in NUMBERS:
        for op in ("+", "-", "*", "/", "//", "%", "**", "==", "<", ">="):
            if not (op == "**" and re.fullmatch(r"-[\d.]+", a) and "." in b):
                expressions(f"({a}) {op} ({b})")
expressions("1 + 2 * 3 - 4 / 2", "2 ** 3 ** 2", "-2 ** 2", "- 2|abs", "-2|abs", "1 ~ 2 ~ 3 + 4", "1 + 2 ~ 3", "'a' ~ 1 == 'a1'", "1 < 2 < 3", "1 < 3 < 2",
            "3 > 2 >= 2 != 1", "1 == 1.0 == true", "not 1 == 2", "not not t", "t and f or 'last'", "f or n or 0", "'a' and 'b'", "'a' if f", "('a' if f) is defined",
            "'a' if f else 'b' if f else 'c'", "'a' if t else 'b' if f else 'c'", "'x' 'y' \"z\"", "[1, 2] + [3]", "(1,) + (2,)", "[1] + (2,)", "'a' + 1", "1 + 'a'",
            "'%s-%d-%5.2f|%-5s|%05d|%x|%%' % ('a', 3.7, 2.345, 'b', -42, 255)", "'%s' % 'a'", "'%s %s' % ('a',)", "'%(k)s' % {'k': 5}", "'%r' % 'a'", "'%+d % d' % (3, 3)",
            "'%e %g %G' % (12345.678, 0.00001, 1e20)", "'%s' % [1]", "'%d' % '3'", "'a' * 3", "[1, 2] * 2", "'a' * -1", "2 * 'ab'", "'abc' > 'abd'", "[1, 2] < [1, 3]",
            "[1] < [1, 0]", "(1, 'a') == (1, 'a')", "{'a': 1} == {'a': 1.0}", "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "[1] == (1,)", "range(3) == range(0, 3)", "none == false",
            "missing == none", "missing == missing2", "missing is sameas missing", "n is sameas none", "t is sameas true", "1 is sameas true", "'b' in 'abc'", "'' in 'abc'",
            "1 in 'abc'", "'a' in d", "'q' in d", "1 not in l", "[1] in [[1]]", "[1] in d", "missing in l", "l in missing", "missing in 'a'", "1.0 in l", "0x1f + 0b11 + 0o17",
            "1_000 + 1_0.5", "1e3", "1.5E-3", "9223372036854775807", "missing.a", "missing['a']", "missing + 1", "missing()", "n.a", "n.a.b", "n['a']", "n()", "i.a", "s.nothing",
            "7 // 0", "7 % 0", "1 / 0", "7.5 // 2", "-7.5 // 2", "-7.5 % 2", "7 % -3", "-7 % 3", "5 // -2", "0.0 ** -1", "3 ** -1", "1e308 * 10", "(1e308 * 10)|int", "2 ** 62", "10 ** 3")

# Strings: indices, slices, methods.
for a in ("", "1", "-2", "99", "-99"):
    for b in ("", "3", "-1", "99"):
        for c in ("", ":2", ":-1", ":-3"):
            expressions(f"s[{a}:{b}{c}]", f"l[{a}:{b}{c}]")
expressions("s[0]", "s[1]", "s[-1]", "s[99]", "s[99] is defined", "l[0]", "l[-1]", "l[5]", "l['0']", "l[1.0]", "l[true]", "(1, 2, 3)[1:]", "l[::0]", "l['a':]", "d[1:2]", "range(9)[2]", "s.0", "l.1", "d.b", "d.items",
            "d['items']", "d.get", "d.get('b')", "d.get('q')", "d.get('q', 5)", "d.keys()|list", "d.values()|list", "d.items()|list", "d.items()[0]", "d.copy()", "l.copy()", "l.index(1)", "l.index(9)", "l.count(1)",
            "(1, 2).index(2)", "l.append(1)", "l.pop()", "d.update({})", "d.pop('b')", "s.__class__", "s.__class__.__mro__", "l.__len__()", "messages[0].role", "messages[0]['role']", "messages[0].nope", "messages[9].role")
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip()", "lstrip()", "rstrip()", "strip('x')", "strip('hd')", "lstrip('hé')", "rstrip('dl')", "strip(none)", "split()", "split(' ')", "split('l')", "split('l', 1)",
           "split(none, 1)", "split('')", "split(maxsplit=1)", "rsplit()", "rsplit('l', 1)", "rsplit(none, 1)", "rsplit(' ', 5)", "splitlines()", "splitlines(true)", "partition('l')", "rpartition('l')", "partition('zz')", "rpartition('zz')",
           "find('l')", "find('l', 4)", "find('zz')", "find('', 2)", "find('l', 0, 2)", "rfind('l')", "index('l')", "index('zz')", "rindex('o')", "count('l')", "count('')", "count('l', 3)", "startswith('h')", "startswith(('x', 'h'))",
           "startswith('é', 1)", "endswith('d')", "endswith(('d', 'q'))", "endswith('ö', 0, 8)", "startswith(1)", "replace('l', 'L')", "replace('l', 'L', 1)", "replace('', '-')", "replace('', '-', 2)", "replace('zz', 'q')", "removeprefix('hé')",
           "removesuffix('ld')", "removeprefix('q')", "ljust(15)", "ljust(15, '*')", "rjust(15, '-')", "center(15)", "center(16, '.')", "center(3)", "zfill(15)", "join(['a', 'b'])", "join('ab')", "join([1])", "isalpha()", "isalnum()", "isdigit()",
           "isdecimal()", "isnumeric()", "isspace()", "islower()", "isupper()", "istitle()", "isascii()", "isprintable()", "nope()"]
TEXTS = ["s", "''", "'  a b\\t c \\n'", "'aXbXXc'", "'ǆ ǅ ß ﬁ ΑΣ ΣΑ İi ŉ'", "'they\\'re Bill\\'s friends-from (the) UK'", "'12'", "'½²'", "'-3.5'", "'l1\\r\\nl2\\rl3\\n\\x0bl4\\u2028l5'", "' \\u00a0\\u2003x\\u3000\\x1c'", "'日本語 テキスト'", "'A'", "'Ab Cd'"]
for t in TEXTS:
    for m in METHODS:
        expressions(f"{t}.{m}|string if false else {t}.{m}")
    expressions(*[f"{t}|{f}" for f in ("upper", "lower", "title", "capitalize", "trim", "trim('x')", "length", "reverse", "list", "first", "last", "replace('l', 'L')", "replace('l', 'L', 1)", "indent", "indent(2)", "indent(2, true)", "indent('> ')",
                                       "indent(width=3, first=true, blank=true)", "wordcount", "truncate(5)", "truncate(6, true)", "truncate(5, false, '!')", "truncate(8, leeway=0)", "center(20)", "escape", "e|upper", "urlencode", "tojson", "string", "safe",
                                       "striptags", "int", "float", "sort|join", "unique|join", "join('-')", "select|list", "map('upper')|join", "batch(2)|list", "tojson(ensure_ascii=true)")])
expressions("'{} {}'.format(1, 'a')", "'{1} {0}'.format(1, 'a')", "'{a} {b!r}'.format(a=1, b='x')", "'{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd')", "'{:05d} {:+} {:,} {:x} {:#x} {:b} {:o}'.format(42, 3, 1234567, 255, 255, 5, 8)",
            "'{:.2f} {:8.3f} {:e} {:g} {:%}'.format(3.14159, 2.5, 12345.6, 0.0001, 0.25)", "'{{}} {}'.format(1)", "'{0.role} {0[role]}'.format(messages[0])", "'{:{}}'.format('a', 4)", "'{'.format()", "'}'.format()", "'{} {0}'.format(1)", "'{a}'.format()",
            "'{:d}'.format('a')", "'{:.2}'.format('abc')", "'{}'.format(none)", "'{:5}'.format(true)", "'%s'|format('a')", "'%s %s'|format('a', 1)", "'%(a)s'|format(a=2)", "'{:_}'.format(1234567)", "'{:>10,.2f}'.format(1234.5)")

# Filters.
expressions("l|sort", "l|sort(reverse=true)", "l|sort(true)", "words|sort", "words|sort(case_sensitive=true)", "people|sort(attribute='age')|map(attribute='name')|list", "people|sort(attribute='age,name')|map(attribute='name')|list",
            "people|sort(attribute='c.y', reverse=true)|map(attribute='name')|join", "[1, 'a']|sort", "words|unique|list", "words|unique(true)|list", "people|unique(attribute='age')|map(attribute='name')|list", "l|min", "l|max", "e|min", "e|max is defined",
            "words|min", "words|max(case_sensitive=true)", "people|max(attribute='age')", "people|min(attribute='name')", "l|sum", "people|sum(attribute='age')", "l|sum(start=10)", "[[1], [2]]|sum(start=[])", "e|sum", "words|sum", "l|batch(2)|list",
            "l|batch(2, 'x')|list", "range(7)|slice(3)|list", "range(7)|slice(3, 'x')|list", "people|groupby('age')", "people|groupby('age')|map(attribute='grouper')|list", "people|groupby('nope', default='q')", "people|groupby('name')|map(attribute=0)|list",
            "d|dictsort", "d|dictsort(true)", "{'a': 2, 'b': 1}|dictsort(by='value')", "{'a': 2, 'b': 1}|dictsort(false, 'value', true)", "{'a': 2}|dictsort(by='q')", "d|items|list", "missing|items|list", "l|items|list", "people|map(attribute='name')|join(', ')",
            "people|map(attribute='nope')|list", "people|map(attribute='nope', default='q')|list", "people|map(attribute='c.y')|list", "words|map('upper')|list", "words|map('replace', 'a', 'X')|list", "words|map('default', default='x')|list", "words|map('nope')|list",
            "words|map|list", "l|select|list", "l|select('odd')|list", "l|select('gt', 1)|list", "l|select('>', 1)|list", "l|reject('odd')|list", "[0, 1, none, 'a', '']|select|list", "[0, 1, none]|reject|list", "people|selectattr('age')|list|length",
            "people|selectattr('age', 'eq', 5)|map(attribute='name')|list", "people|selectattr('nope')|list", "people|selectattr('nope', 'defined')|list", "people|selectattr('nope', 'undefined')|list|length", "people|rejectattr('age', 'lessthan', 4)|map(attribute='name')|list",
            "people|rejectattr('name', 'in', ['Bo'])|map(attribute='name')|list", "people|selectattr('c.y', 'ge', 2)|map(attribute='name')|list", "1 if people|selectattr('age', 'eq', 99) else 0", "people|selectattr('age', 'eq', 5)|first", "people|map(attribute='name')|first",
            "people|map(attribute='name')|length", "people|map(attribute='name')|last", "(people|map(attribute='name'))[0]", "l|join", "l|join(', ')", "people|join('-', attribute='name')", "people|join('-', 'age')", "[none, 1.0, true]|join('|')", "missing|join(',')",
            "'x'|attr('upper')", "d|attr('b')", "d|attr('items')", "'3.7'|int", "'3'|int(9)", "'q'|int(9)", "'q'|int(default=9)", "'0x1f'|int(base=16)", "'1f'|int(base=16)", "' 12 '|int", "'1_000'|int", "'+5'|int", "none|int", "none|int(4)", "true|int", "3.99|int", "-3.99|int",
            "'1e3'|int", "'1e3'|float", "' 2.5 '|float", "'.5'|float", "'5.'|float", "'q'|float", "'q'|float(1.5)", "'inf'|float", "'nan'|float", "none|float", "[]|int", "missing|int", "missing|float", "2.5|round", "3.5|round", "-2.5|round", "2.675|round(2)", "1234.5678|round(2)",
            "1234.5678|round(-2)", "7|round", "7|round(1)", "15|round(-1)", "25|round(-1)", "2.1|round(method='ceil')", "2.9|round(0, 'floor')", "2.123|round(2, 'ceil')", "2.5|round(method='q')", "'a'|round", "1|filesizeformat", "999|filesizeformat", "12345|filesizeformat",
            "12345|filesizeformat(true)", "1e30|filesizeformat", "{'a': 1, 'b c': 'é&'}|urlencode", "'a b/é?&'|urlencode", "5|urlencode", "l|reverse|list", "d|reverse|list", "l|reverse", "'<a>'|e", "'<a>'|safe|e", "('<a>'|safe) + '<b>'", "'<b>' + ('<a>'|safe)", "('<a>'|safe) ~ '<b>'",
            "('%s'|safe) % '<'", "('<'|safe) * 2", "['<'|safe]", "'<a>'|e|upper", "('<'|safe)|replace('<', '>')", "('<'|safe).replace('<', '>') + '<'", "'<'|forceescape", "('&lt;'|safe)|forceescape", "('a'|safe).join(['<', 'b'])", "'<p>a  b</p> c'|striptags", "d|count", "s|count",
            "d|tojson", "d|tojson(2)", "d|tojson(indent=4)", "d|tojson(indent='--')", "d|tojson(sort_keys=true)", "d|tojson(separators=(',', ':'))", "s|tojson(ensure_ascii=true)", "'\\x7f\\u2028\\U0001f600</script>'|tojson", "'\\x7f\\u2028\\U0001f600'|tojson(ensure_ascii=true)", "[1.0, 1e20, 0.1, -0.0]|tojson",
            "{1: 2, none: 3, true: 4, 1.5: 5}|tojson", "(1, (2,))|tojson", "range(3)|tojson", "missing|tojson", "[missing]|tojson", "d.items()|tojson", "d.items()|list|tojson", "namespace(a=1)|tojson", "l|nope", "l|nope if false", "l is nope", "upper|upper", "'nope' is filter", "'upper' is filter",
            "'odd' is test", "'nope' is test", "[]|first", "[]|first is defined", "[]|last", "''|first", "l|first|first", "l|length()", "l|length(1)", "l|default", "l|join(d='+')", "l|join(q='+')", "'a'|replace('a')", "'abc'|replace(old='a', new='b')", "l|map('string')|map('length')|sum", "5 is divisibleby(num=5)",
            "3 is odd is true", "(3 is odd) is true", "'a' is in('abc')", "3 is not in [1, 2]", "4 is even and 3 is odd", "missing is defined or 1", "x is number and x is not integer", "d.a[1].k is none", "d['a'][0] is eq 1", "5 is gt 3 and 5 is lt 9", "s is string and s|length > 3")

# Statements.
for template in [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ m.role }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ m.role }}>{{ loop.nextitem.role if loop.nextitem is defined else '-' }};{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }};{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'nope' %}x{% else %}none{% endfor %}", "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in missing %}x{% else %}none{% endfor %}", "{% for x in none %}x{% endfor %}", "{% for x in 5 %}x{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}", "{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}", "{% for x in l %}{{ loop }}{% endfor %}", "{% for x in l %}{{ loop.nope }}{% endfor %}|{{ loop is defined }}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for (a, b) in [[1, 2]] %}{{ a + b }}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for a, b in [(1,)] %}{% endfor %}",
    "{% for c in 'héy' %}[{{ c }}]{% endfor %}", "{% for x in range(3) %}{% for y in range(x) %}{{ loop.index }}{{ y }}{% endfor %}|{% endfor %}", "{% for x in l %}{% set outer = loop %}{% for y in l %}{{ outer.index }}{{ loop.index }},{% endfor %}{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}", "{% break %}", "{% continue %}",
    "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': [{'v': 4, 'c': []}]}]}] recursive %}<{{ n.v }}@{{ loop.depth }}{{ loop(n.c) }}>{% endfor %}", "{% for n in l %}{{ loop([1]) }}{% endfor %}",
    "{% set g = words|map('upper') %}{% for x in g %}{{ x }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}|{{ g|list }}", "{% set g = words|map('upper') %}{{ g|list }}{{ g|list }}", "{% set ns = namespace(stop=false) %}{% for x in range(5) if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% if t %}a{% elif f %}b{% else %}c{% endif %}{% if f %}a{% elif t %}b{% else %}c{% endif %}{% if f %}a{% elif n %}b{% else %}c{% endif %}{% if missing %}a{% endif %}", "{% if 1, %}a{% endif %}", "{% if t: %}a{% endif %}",
    "{% set a = 1 %}{% if t %}{% set a = 2 %}{% endif %}{{ a }}", "{% set a = 1 %}{% for x in l %}{% set a = x %}{{ a }}{% endfor %}{{ a }}", "{% for x in l %}{{ a is defined }}{% set a = x %}{% endfor %}{{ a is defined }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set (a, b) = 'xy' %}{{ a }}{{ b }}",
    "{% set ns = namespace(x=1, y=[]) %}{% set ns.x = ns.x + 1 %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}{{ ns['x'] }}{{ ns }}", "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "{% set d.x = 1 %}", "{% set nope.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set ns = namespace(_x=1) %}",
    "{% set ns = namespace(a=0) %}{% for x in l %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}", "{% set ns = namespace(a=1) %}{% set ns.a, b = 5, 6 %}{{ ns.a }}{{ b }}", "{% set true = 1 %}", "{% set a %}x{{ 1 }}y{% endset %}[{{ a }}]", "{% set a | upper | replace('X', 'z') %}x{{ 'q' }}{% endset %}[{{ a }}]",
    "{% set a %}{% set b = 1 %}{% endset %}{{ b is defined }}", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}{{ b is defined }}", "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z is defined }}", "{% filter upper %}a{{ 'b' }}{% set q = 1 %}{% endfilter %}{{ q is defined }}", "{% filter trim|upper %}  a {% endfilter %}|",
    "{% filter replace('a', 'b') %}banana{% endfilter %}", "{% filter nope %}a{% endfilter %}",
    "{% macro m(a, b=2, c='x' ~ b) %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=5) }}{{ m(b=1) }}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(q=2) }}", "{% macro m(a) %}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a) %}{{ a }}|{{ varargs }}|{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, q=4) }}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}body{% endcall %}", "{% macro m() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b=5) m() %}{{ a }}{{ b }}{% endcall %}", "{% macro m() %}{{ caller() if caller else 'none' }}{% endmacro %}{{ m() }}",
    "{% macro m() %}x{% endmacro %}{% call m() %}body{% endcall %}", "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}", "{% for x in l %}{% macro m() %}{{ x }}{{ loop.index }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m() %}{{ loop is defined }}{% endmacro %}{% for x in l %}{{ m() }}{% endfor %}", "{% macro m(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ m(1) }}{{ y is defined }}", "{% macro m(x) %}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.catch_varargs }}{{ m.caller }}{{ m }}", "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(*[1], **{'b': 2}) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(x=5)|int + 1 }}",
    "{% generation %}a{{ 1 }}{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% endgeneration %}{% endfor %}", "{% block a %}x{% endblock %}{% block b scoped %}y{% endblock b %}", "{% print 1, 2 %}",
    "{% raw %}{{ a }}{% b %}{# c #}{% endraw %}|", "a {%- raw -%}  x  {%- endraw -%}  b", "{% raw %}", "{# {{ a }} #}b", "a {#- c -#} b", "{# unclosed", "a\n{# c #}\nb", "a\n  {# c #}\nb", "{{ cycler('a', 'b').next() }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner() %}{{ j() }}{{ j() }}", "{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict({'a': 1}, a=2) }}{{ dict(1) }}", "{{ range(5)|list }}{{ range(2, 5)|list }}{{ range(5, 2, -1)|list }}{{ range(0)|list }}", "{{ range(1, 2, 0) }}", "{{ range(100001) }}", "{{ range('a') }}",
    "{{ raise_exception('no ' ~ 1) }}", "{{ strftime_now('%a %A %b %B %c %C %d %D %e %F %g %G %h %H %I %j %k %l %m %M %n %p %r %R %S %t %T %u %U %V %w %W %x %X %y %Y %% %-d %-m %-H %f') }}",
    # Tags and white space.
    "a\n{% if t %}\nb\n{% endif %}\nc", "a\n  {% if t %}\n  b\n  {% endif %}\nc", "a {%- if t -%} b {%- endif -%} c", "a\n{%+ if t %}\nb{% endif +%}\nc", "  {%+ if t %}x{% endif %}", "{{- 1 -}}\n  {{- 2 -}}\n", "a\n\n{{ 1 }}\n\n", "a\r\nb\rc\r\n", "{% if t %}\r\nx{% endif %}", "x {{ 1 }}\n  {% set a = 1 %}\n y", "{{ '\r\n' }}|",
    "\n\n", "a\n", "a\n\n", "  {% if t %}  {% endif %}  ", "\t{% if t %}\tx", "x{% if t %}\n\n{% endif %}y", "{%- for x in l %}\n  {{ x }}\n{%- endfor %}\n", "{% for x in l -%}\n  {{ x }}\n{% endfor %}", "a{#- x #}\n b", "a\n   {#- x -#}   \n b", "{{ {'a': {'b': 1}} }}", "{{ {'a': 1}}}", "{{ '}}' }}{{ \"%}\" }}", "{% set x = '{% endif %}' %}{{ x }}",
    "{{ 1 }", "{{ }}", "{% %}", "{% if %}{% endif %}", "{% if t %}", "{% endif %}", "{% for x l %}{% endfor %}", "{% nope %}", "{{ 1 2 }}", "{{ (1 }}", "{{ [1, 2,] }}{{ {'a': 1,} }}{{ (1,) }}", "{{ [1,, 2] }}", "{{ 'a }}", "{{ a b }}", "{{ a.1b }}", "{{ . }}", "{{ ? }}", "{{ '\\x4' }}", "{{ 'a\\\nb' }}", "{{ 'a\\qb\\101\\0' }}", "{{ \"\\u00e9\\N{DIGIT ONE}\" }}" if False else "{{ 1 }}",
    "{{ 'é' }}é{{ é }}", "{% set é = 1 %}{{ é }}", "{{ messages|tojson }}", "{% for m in messages %}{{ m.content|trim ~ '|' }}{% endfor %}", "{% for m in messages[1:] %}{{ m['role'][0] }}{% endfor %}", "{{ messages[-1].content or 'empty' }}", "{% for message in messages[::-1] %}{{ message.role }}{% endfor %}", "{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}",
    "{{ messages[2].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}", "{% set ns = namespace(i=-1) %}{% for m in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{% if m.role == 'user' and ns.i < 0 %}{% set ns.i = index %}{% endif %}{% endfor %}{{ ns.i }}",
    "{{ messages|map(attribute='content')|map('trim')|select|list }}", "{% if messages[0]['role'] == 'system' %}{% set messages = messages[1:] %}{% endif %}{{ messages|length }}", "{% if 'nope' in messages[0] and messages[0].nope %}x{% else %}y{% endif %}", "{{ (messages|selectattr('role', 'equalto', 'nope')|list|first).role }}",
    "{{ 'a'[,0] }}", "{{ 'abc'[0,] }}", "{{ 'abc'[,] }}", "{{ 'abc'[] }}", "{{ {}.a }}|{{ {}['a'] }}|{{ {'a': none}.a is none }}", "{{ [1, 2]|tojson|length }}", "{{ ('a', 'b')|join }}", "{% set x = [] %}{% set x = x + [1] %}{{ x }}", "{% set x = {} %}{% set x = dict(x, **{'k': 1}) %}{{ x }}", "{{ self }}" if False else "{{ 2 }}", "{{ caller }}|{{ varargs }}|{{ kwargs }}", "{{ true }}{{ True }}{{ none }}{{ None }}{{ false }}{{ False }}",
]:
    case(template)


def main():
    print(json.dumps({"variables": V}))
    seen = set()
    for template, _ in CASES:
        if template in seen:
            continue
        seen.add(template)
        out = {"template": template}
        try:
            out["text"] = ctu._compile_jinja_template(template).render(**V)
            if " at 0x" in out["text"]:
                continue  # an address: nothing to compare
            out["text"].encode()
        except Exception as error:
            out.pop("text", None)
            out["why"] = f"{type(error).__name__}: {error}"[:80]
        print(json.dumps(out))


main()
