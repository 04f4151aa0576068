#!/usr/bin/env python3
"""Values of SciPy and statsmodels that tests/stats compares with; needs scipy, statsmodels, numpy.

    python tests/stats/references.py > tests/stats/references.hpp
"""
import math

import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint


def restricted(n, lost, gained, difference):
    """Likeliest share lost where gained - lost is `difference`, by search."""

    def minus_log_likelihood(share):
        cells = [(lost, share), (gained, share + difference), (n - lost - gained, 1 - 2 * share - difference)]
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k > 0)

    low, high = max(0.0, -difference), (1 - difference) / 2
    found = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded",
                                     options={"xatol": 1e-14})
    return min([found.x, low, high], key=minus_log_likelihood)


def tango(n, lost, gained, difference):
    """(Observed - claimed) over its standard error at the restricted estimate."""
    share = restricted(n, lost, gained, difference)
    variance = n * (2 * share + difference - difference**2)
    excess = gained - lost - n * difference
    return 0.0 if abs(excess) < 1e-9 else excess / math.sqrt(max(variance, 1e-300))


def p_above(n, lost, gained, difference):
    """P(statistic as high or higher) over every table, at the restricted estimate."""
    seen = tango(n, lost, gained, difference)
    share = restricted(n, lost, gained, difference)
    cells = [share, share + difference, 1 - 2 * share - difference]
    return sum(stats.multinomial.pmf([a, b, n - a - b], n, cells)
               for a in range(n + 1) for b in range(n + 1 - a)
               if tango(n, a, b, difference) >= seen - 1e-7)


def wealth(losses, margin):
    """The mixture of bets of BettingTest, in the open."""
    bets = [(0.5, 1.0)] + [(0.5 / 32, math.sin(math.pi / 2 * (i + 0.5) / 32)**2) for i in range(32)]
    return sum(share * np.prod([1 + size * (margin - x) / (1 - margin) for x in losses]) for share, size in bets)


def table(kind, name, rows):
    print(f"inline const {kind} {name}[] = {{")
    for row in rows:
        print("    {" + ", ".join(repr(float(x)) if isinstance(x, (float, np.floating)) else str(x) for x in row) + "},")
    print("};\n")


print(f"""// Made by tests/stats/references.py with SciPy {scipy.__version__} and statsmodels {statsmodels.__version__}; do not edit.
#pragma once

namespace steer::test {{

struct BoundRow {{
  int hits, n;
  double level, upper;
}};
struct PairedRow {{
  int n, only_a, only_b;
  double difference, statistic, p_above;
}};
struct McNemarRow {{
  int only_a, only_b;
  double p_exact, p_mid;
}};
struct EffectiveRow {{
  int questions, rows;
  double low, high;
}};
struct MaxTRow {{
  double correlation, critical;
}};
""")
print("// proportion_confint(hits, n, alpha=2 * (1 - level), method='beta')[1]")
table("BoundRow", "kUpperBounds", [(k, n, level, proportion_confint(k, n, alpha=2 * (1 - level), method="beta")[1])
                                   for k, n, level in [(0, 64, .95), (0, 171, .95), (4, 500, .95), (3, 20, .95),
                                                       (19, 20, .9), (0, 1, .95), (37, 14042, .99)]])
print("// Restricted likelihood by scipy.optimize, p by summing scipy.stats.multinomial over all tables")
table("PairedRow", "kPaired", [(n, a, b, d, tango(n, a, b, d), p_above(n, a, b, d))
                               for n, a, b, d in [(12, 0, 0, -.05), (12, 1, 0, -.05), (20, 2, 5, 0.), (20, 3, 1, -.1),
                                                  (25, 0, 4, .02), (30, 2, 2, -.02), (30, 0, 0, -.02), (16, 6, 1, -.3)]])
print("// mcnemar([[0, a], [b, 0]], exact=True); mid-p of Fagerland, Lydersen and Laake 2013 by scipy.stats.binom")
rows = []
for a, b in [(5, 0), (3, 9), (4, 4), (1, 1), (0, 1), (12, 20)]:
    exact = mcnemar([[0, a], [b, 0]], exact=True).pvalue
    mass = stats.binom.pmf(min(a, b), a + b, .5)
    rows.append((a, b, min(1.0, exact), 1 - mass / 2 if a == b else exact - mass))
table("McNemarRow", "kMcNemar", rows)
print("// Wilson's interval of the effective n: OLS on a constant with cluster-robust covariance, question q of row i is\n"
      "// i / rows, and row r of question q hits unless q % 5 == 0 and r % 3 == 0; Student against normal as Korn and Graubard")
rows = []
for questions, per in [(12, 4), (40, 14), (171, 3)]:
    y, g = [], []
    for q in range(questions):
        for r in range(per):
            y.append(0. if q % 5 == 0 and r % 3 == 0 else 1.)
            g.append(q)
    y = np.array(y)
    fit = sm.OLS(y, np.ones(len(y))).fit(cov_type="cluster", cov_kwds={"groups": np.array(g), "use_correction": False})
    se = fit.bse[0] * math.sqrt(questions / (questions - 1))
    se *= stats.t.ppf(.975, questions - 1) / stats.norm.ppf(.975)
    effective = min(len(y), y.mean() * (1 - y.mean()) / se**2)
    low, high = proportion_confint(y.mean() * effective, effective, method="wilson")
    rows.append((questions, per, low, high))
table("EffectiveRow", "kEffective", rows)
print("// |t| that none of 3 equally correlated normal statistics exceeds with probability .95: scipy.stats.multivariate_normal")
rows = []
for rho in [0., .5, .9]:
    cov = np.full((3, 3), rho) + (1 - rho) * np.eye(3)
    inside = lambda c: stats.multivariate_normal(cov=cov, maxpts=4_000_000, abseps=1e-9, releps=1e-9, seed=1).cdf(
        [c] * 3, lower_limit=[-c] * 3)
    rows.append((rho, optimize.brentq(lambda c: inside(c) - .95, 1.9, 2.6, xtol=1e-5)))
table("MaxTRow", "kMaxT", rows)
losses = [0, 0, 1, 0, -1, .5, 0, 0, 0, 0]
print("// BettingTest's wealth written out: losses 0, 0, 1, 0, -1, .5, 0, 0, 0, 0 against a margin of .3, and 171 zeros\n"
      "// against .02")
print(f"constexpr double kWealth = {float(wealth(losses, .3))!r}, kWealthOfNone = {float(wealth([0] * 171, .02))!r};\n")
print("}  // namespace steer::test")
