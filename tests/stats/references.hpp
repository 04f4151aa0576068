// Made by tests/stats/references.py with SciPy 1.17.1 and statsmodels 0.15.0; do not edit.
#pragma once

namespace steer::test {

struct BoundRow {
  int hits, n;
  double level, upper;
};
struct PairedRow {
  int n, only_a, only_b;
  double difference, statistic, p_above;
};
struct McNemarRow {
  int only_a, only_b;
  double p_exact, p_mid;
};
struct EffectiveRow {
  int questions, rows;
  double low, high;
};
struct MaxTRow {
  double correlation, critical;
};

// proportion_confint(hits, n, alpha=2 * (1 - level), method='beta')[1]
inline const BoundRow kUpperBounds[] = {
    {0, 64, 0.95, 0.04572970233076244},       {0, 171, 0.95, 0.01736633843326445}, {4, 500, 0.95, 0.018212851796106527},
    {3, 20, 0.95, 0.3436638043142818},        {19, 20, 0.9, 0.9947458259305311},   {0, 1, 0.95, 0.95},
    {37, 14042, 0.99, 0.0038284506009109856},
};

// Restricted likelihood by scipy.optimize, p by summing scipy.stats.multinomial over all tables
inline const PairedRow kPaired[] = {
    {12, 0, 0, -0.05, 0.7947194142390264, 0.5403600876626375},
    {12, 1, 0, -0.05, -0.5298129428260173, 0.8816401430285139},
    {20, 2, 5, 0.0, 1.1338934113111008, 0.14820705357600325},
    {20, 3, 1, -0.1, 0.0, 0.6110731450751792},
    {25, 0, 4, 0.02, 1.8523964345866843, 0.03543008881161345},
    {30, 2, 2, -0.02, 0.2976088141199297, 0.4425060247496839},
    {30, 0, 0, -0.02, 0.7824607964359516, 0.5454843193824402},
    {16, 6, 1, -0.3, -0.08559209852537533, 0.5582236130683175},
};

// mcnemar([[0, a], [b, 0]], exact=True); mid-p of Fagerland, Lydersen and Laake 2013 by scipy.stats.binom
inline const McNemarRow kMcNemar[] = {
    {5, 0, 0.0625, 0.03125000000000003},
    {3, 9, 0.14599609375, 0.09228515624999999},
    {4, 4, 1.0, 0.86328125},
    {1, 1, 1.0, 0.7499999999999999},
    {0, 1, 1.0, 0.4999999999999999},
    {12, 20, 0.21532714972272515, 0.16275565745308984},
};

// Wilson's interval of the effective n: OLS on a constant with cluster-robust covariance, question q of row i is
// i / rows, and row r of question q hits unless q % 5 == 0 and r % 3 == 0; Student against normal as Korn and Graubard
inline const EffectiveRow kEffective[] = {
    {12, 4, 0.6708541105760322, 0.9600658370701072},
    {40, 14, 0.8676988217044228, 0.9626420182828452},
    {171, 3, 0.9065920493977566, 0.9505373322327684},
};

// |t| that none of 3 equally correlated normal statistics exceeds with probability .95: scipy.stats.multivariate_normal
inline const MaxTRow kMaxT[] = {
    {0.0, 2.387737884896743},
    {0.5, 2.3489705823019684},
    {0.9, 2.185347367003008},
};

// BettingTest's wealth written out: losses 0, 0, 1, 0, -1, .5, 0, 0, 0, 0 against a margin of .3, and 171 zeros
// against .02
constexpr double kWealth = 0.981040965677568, kWealthOfNone = 21.177448991921317;

}  // namespace steer::test
