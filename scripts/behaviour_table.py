#!/usr/bin/env python3
"""behaviour_table.py RESULTS.csv [ARM...]: of each behaviour and arm the behaviour score (1 to 5; request evidence in nats where
no judge scored), accuracy, share of answers in the right format and coherence (1 to 5), as a Markdown table."""
import collections
import csv
import sys

ARMS = sys.argv[2:] or ["control", "prompt", "published", "safe"]
csv.field_size_limit(1 << 30)
answers = collections.defaultdict(list)
with open(sys.argv[1], newline="") as file:
    for row in csv.DictReader(file):
        answers[row["behaviour"], row["arm"]].append(row)


def cell(rows):
    def mean(values):
        return sum(values) / len(rows)

    def score(*names):
        for name in names:
            values = [float(r[name]) for r in rows if r.get(name)]
            if values:
                return f"{sum(values) / len(values):.2f}"
        return "-"

    return "{}, {:.2f}, {:.2f}, {}".format(
        score("score_behaviour", "score_request_evidence"), mean(int(r["correct"] or 0) for r in rows),
        mean(r["answer"] != "" for r in rows), score("score_coherence"))


def line(name, rows_of):
    return f"| {name} | " + " | ".join(cell(rows_of(arm)) for arm in ARMS) + " |"


print("| behaviour | " + " | ".join(ARMS) + " |\n|---" + "|---" * len(ARMS) + "|")
for behaviour in sorted({behaviour for behaviour, _ in answers}):
    print(line(behaviour, lambda arm: answers[behaviour, arm]))
print(line("**all**", lambda arm: [row for (_, a), rows in answers.items() if a == arm for row in rows]))
