"""How the scripts that make tables of code points print them as C++."""


def lines(items, width=118):
    """Items separated by commas, in lines of at most `width` characters."""
    line = " "
    for item in items:
        if len(line) + len(item) + 2 > width:
            print(line)
            line = " "
        line += " " + item + ","
    print(line)


def ranges(codes):
    """The runs [first, last] of code points, which must rise."""
    out = []
    for c in codes:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def code_ranges(name, codes):
    """A table of the runs of code points."""
    print(f"inline constexpr CodeRange {name}[] = {{")
    lines("{0x%X, 0x%X}" % tuple(r) for r in ranges(codes))
    print("};")
