"""How values look in notebooks, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from ._core import AutoSteerResult, Inspection, Report, Steering, SteeringAudit
from .experiment import frame


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    cells = "".join(f"<th style='text-align:left'>{escape(str(h))}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _what(description: str, point: str) -> str:
    """Of "nudge 330 by 6 at blocks.1.hook_resid_post, all" what stands before the point, which has a column."""
    return description.split(f" at {point}")[0]


def steering_html(steering: Steering) -> str:
    """A table, one row an edit."""
    if not steering:
        return "<em>no steering</em>"
    rows = ((e.name or _what(repr(e), e.point), e.point, repr(e.scope)[6:-1], e.when or "") for e in steering.edits)
    return _table(["edit", "point", "scope", "when"], rows)


def audit_html(audit: SteeringAudit) -> str:
    """A table, one row an edit: what it saw and what it changed."""
    if not audit.edits:
        return "<em>no edits</em>"
    rows = (
        (_what(e.edit, e.point), e.point, e.seen, e.in_scope, e.edited, f"{e.mean_change:.3f}", f"{e.max_change:.3f}") for e in audit.edits
    )
    table = _table(["edit", "point", "seen", "in scope", "edited", "mean change", "max change"], rows)
    return table if audit.fired else table + "<p><strong>No token was changed.</strong></p>"


def inspection_html(inspection: Inspection) -> str:
    """The page of the inspection, in a frame of its own."""
    return f"<iframe srcdoc='{escape(inspection.to_html(), quote=True)}' style='width:100%;height:30em;border:0'></iframe>"


def result_html(result: AutoSteerResult) -> str:
    """The explanation and the strength curve."""
    return f"<pre style='white-space:pre-wrap'>{escape(result.explain())}</pre>{result.to_svg()}"


def report_html(report: Report) -> str:
    """Headline, findings and the trade-off."""
    findings = "".join(f"<li>{escape(f)}</li>" for f in report.findings())
    rows = [r for r in report.tradeoffs() if r["behaviour"] == ""]
    names = list(dict.fromkeys(name for r in rows for name in r["scores"]))
    shown = ([r["arm"], r["n"], _shown(r["accuracy"]), *(_shown(r["scores"].get(n)) for n in names)] for r in rows)
    return f"<h4>{escape(report.headline())}</h4><ul>{findings}</ul>{_table(['arm', 'n', 'accuracy', *names], shown)}"


def _shown(estimate: dict[str, float] | None) -> str:
    return f"{estimate['mean']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]" if estimate else ""


def to_pandas(report: Report) -> Any:
    """One row an answer: a DataFrame where pandas is installed, else a list of dicts."""
    return frame(report.rows())


def plot_tradeoff(report: Report, score: str = "behaviour", behaviour: str = "", ax: Any = None) -> Any:
    """Accuracy over a score, one point an arm, with the intervals of both. Returns matplotlib's axes."""
    import matplotlib.pyplot as plt

    axes = ax if ax is not None else plt.subplots(figsize=(6, 4), layout="constrained")[1]
    for row in report.tradeoffs():
        if row["behaviour"] != behaviour or score not in row["scores"]:
            continue
        x, y = row["scores"][score], row["accuracy"]
        axes.errorbar(
            x["mean"], y["mean"], xerr=[[x["mean"] - x["low"]], [x["high"] - x["mean"]]],
            yerr=[[y["mean"] - y["low"]], [y["high"] - y["mean"]]], fmt="o", capsize=3, label=row["arm"],
        )  # fmt: skip
    axes.set(xlabel=score.replace("_", " "), ylabel="accuracy", title="What steering gains, and what it costs")
    axes.legend(frameon=False)
    return axes


def plot_strength(result: AutoSteerResult, ax: Any = None) -> Any:
    """Behaviour and accuracy of every trial over its effect (KL, nats), one line a form. Returns matplotlib's axes."""
    import matplotlib.pyplot as plt

    axes = ax if ax is not None else plt.subplots(figsize=(9, 4), layout="constrained")[1]
    forms = dict.fromkeys(t.form for t in result.trials)
    for form in forms:
        trials = sorted((t for t in result.trials if t.form == form), key=lambda t: t.effect)
        line = axes.plot([t.effect for t in trials], [t.behaviour for t in trials], "o-", label=form)[0]
        axes.plot([t.effect for t in trials], [t.accuracy for t in trials], "x:", color=line.get_color())
    axes.set(xscale="log", xlabel="95th percentile of next-token KL (nats)", ylabel="behaviour (o), accuracy (x)",
             title=f"{result.behaviour}: {result.verdict.replace('_', ' ')}")  # fmt: skip
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
