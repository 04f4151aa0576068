"""Lists public functions without a contract comment: contracts.py INCLUDE

A contract is a `///` block above a declaration (or `///<` behind it). Consecutive declarations without a blank line
between them share the block above the first. Where a tensor goes in or out, the block, or the class's own, must state
shapes in brackets. Defaulted and deleted members, destructors, operators and one-line accessors of documented classes
need none. `private:` sections and namespace detail are not public.

A contract that a formatter broke is a problem too: some words of a sentence on a line of their own, left of the rest.
"""
import pathlib
import re
import sys

NO_CONTRACT = re.compile(r"=\s*(default|delete)|operator|~|\bfriend\b|^\s*explicit \w+\(std::shared_ptr|^\s*using |static_assert")
FUNCTION = re.compile(r"^(?:template\s*<.*>\s*)?(?:\[\[\w+\]\]\s*)?(?:[\w:<>,&*\s\[\]]+?[\s&*>])?(~?\w+)\s*\(")
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "decltype", "requires", "noexcept", "static_assert",
            "catch", "alignas", "defined", "throw", "assert"}


class Scope:
    def __init__(self, kind, name, public, doc):
        self.kind, self.name, self.public, self.doc = kind, name, public, doc


def statements(text):
    """Yields (line, code, doc, scopes) for each declaration at namespace or class level."""
    scopes, doc, code, start, shared = [], [], "", 0, ""
    depth_in_body = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not depth_in_body:
            if line.startswith("///"):
                if not code:
                    doc.append(line.lstrip("/< "))
                    continue
            if not line:
                if not code:
                    doc, shared = [], ""
                continue
        if line.startswith("#"):
            continue
        trailing = re.search(r"///<\s*(.*)$", raw)
        line = re.sub(r"//.*$", "", line).strip()
        if not line:
            continue
        if depth_in_body:
            depth_in_body += line.count("{") - line.count("}")
            if depth_in_body <= 0:
                depth_in_body = 0
            continue
        access = re.match(r"^(public|private|protected)\s*:", line)
        if access and scopes:
            scopes[-1].public = access.group(1) == "public"
            doc, shared = [], ""
            continue
        if line.startswith("}"):
            if scopes:
                scopes.pop()
            doc, shared, code = [], "", ""
            continue
        if not code:
            start = number
        code = (code + " " + line).strip()
        if code.count("(") > code.count(")"):
            continue
        if not re.search(r"[;{}]\s*$", code):
            continue
        documentation = "\n".join(doc + ([trailing.group(1)] if trailing else [])) or shared
        opens = code.count("{") > code.count("}")
        head = re.match(r"^(?:template\s*<.*?>\s*)?(namespace|class|struct|enum class|enum|union|extern)\b\s*(?:\[\[\w+\]\]\s*)?([\w:]*)", code)
        if head and opens:
            scopes.append(Scope(head.group(1), head.group(2), head.group(1) != "class", documentation))
            doc, shared, code = [], "", ""
            continue
        yield start, code, documentation, list(scopes)
        shared = documentation
        if opens:
            depth_in_body = code.count("{") - code.count("}")
        doc, code = [], ""


def broken_lines(text):
    """Numbers of comment lines that hold some words between a full line and the rest of its sentence."""
    lines = text.splitlines()
    for number in range(1, len(lines) - 1):
        before, line, after = (re.match(r"\s*///(\s+)(\S.*)$", lines[k]) for k in (number - 1, number, number + 1))
        if not (before and line and after) or len(lines[number - 1]) < 90:
            continue
        if len(line.group(2).split()) > 2 and len(after.group(1)) <= len(line.group(1)):
            continue
        starts = re.match(r"[@|\-*]", line.group(2)) or re.match(r"[@|\-*]", after.group(2))
        if not starts and line.group(2)[-1] not in ".:;":
            yield number + 1


def main():
    root = pathlib.Path(sys.argv[1])
    problems, functions = [], 0
    for path in sorted(root.rglob("*.hpp")):
        if "detail" in path.parts:
            continue
        for line in broken_lines(path.read_text()):
            problems.append(f"{path.relative_to(root)}:{line}: the formatter broke this comment; fill its lines again")
        for line, code, doc, scopes in statements(path.read_text()):
            if any(scope.name.endswith("detail") or not scope.public or scope.kind.startswith("enum") for scope in scopes):
                continue
            declarator = FUNCTION.match(code.split("=")[0] if "(" not in code.split("=")[0] else code)
            if not declarator or declarator.group(1) in KEYWORDS or NO_CONTRACT.search(code.split("(")[0]) or \
                    re.search(r"\)\s*(const|noexcept|\s)*=\s*(default|delete)", code) or code.startswith(("using", "friend")):
                continue
            name = declarator.group(1)
            owner = scopes[-1] if scopes and scopes[-1].kind in ("class", "struct") else None
            accessor = owner and re.search(r"\(\)\s*const(\s+noexcept)?\s*\{\s*return", code)
            copies = owner and re.search(rf"\b{owner.name}\((const )?{owner.name}\s*&+\w*\)", code)
            if accessor or copies:
                continue
            functions += 1
            if not doc:
                problems.append(f"{path.relative_to(root)}:{line}: {name}: it has no contract comment")
            elif "at::Tensor" in code and "[" not in doc + (owner.doc if owner else ""):
                problems.append(f"{path.relative_to(root)}:{line}: {name}: its contract has no shape in brackets")
    print("\n".join(problems))
    print(f"{functions} public functions, {len(problems)} without a complete contract")
    sys.exit(bool(problems) or not functions)


main()
