#include "generate/prefill.hpp"

#include <algorithm>
#include <numeric>

#include "model/rope.hpp"

namespace steer::generation::detail {
namespace {

/// A shorter shared prefix costs more in an extra step than it saves.
constexpr std::size_t shortest_shared = 8;

/// Rows [begin, end) of the sorted order share their first `depth` tokens, which `sequence` holds (-1: depth is 0).
struct Node {
  std::size_t begin, end, depth;
  SequenceId sequence;
};

std::size_t common_prefix(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

class Trie {
 public:
  Trie(Session& session, std::span<PrefillRow> rows) : session_(session), rows_(rows), order_(rows.size()) {
    // Where a rope turns by the length, a prefix alone is not what it is within a long prompt.
    const std::int64_t free = model::detail::length_free_tokens(session.model().config());
    for (PrefillRow& row : rows_) row.shareable = row.shareable && std::ssize(row.ids) <= free;
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      if (rows_[a].shareable != rows_[b].shareable) return rows_[a].shareable;
      return std::ranges::lexicographical_compare(rows_[a].ids, rows_[b].ids);
    });
  }

  void run() {
    const auto shareable =
        static_cast<std::size_t>(std::ranges::count_if(rows_, [](const PrefillRow& row) { return row.shareable; }));
    split({0, shareable, 0, -1});
    for (std::size_t i = shareable; i < order_.size(); ++i) leaf(i, 0, -1);
    while (!inputs_.empty()) level();
  }

 private:
  PrefillRow& row(std::size_t i) { return rows_[order_[i]]; }

  /// Cuts a node's rows into groups that share something more, and lays each group's next step.
  void split(Node node) {
    for (std::size_t begin = node.begin; begin < node.end;) {
      std::size_t end = begin + 1, shared = row(begin).ids.size();
      for (; end < node.end; ++end) {
        const std::size_t with_next = std::min(shared, common_prefix(row(begin).ids, row(end).ids));
        if (with_next < node.depth + shortest_shared) break;
        shared = with_next;
      }
      // Each row needs a token of its own to give logits.
      for (std::size_t i = begin; i < end; ++i) shared = std::min(shared, row(i).ids.size() - 1);
      if (end - begin < 2 || shared < node.depth + shortest_shared) {
        for (std::size_t i = begin; i < end; ++i) leaf(i, node.depth, node.sequence);
      } else {
        const SequenceId sequence = node.sequence < 0 ? session_.open() : session_.fork(node.sequence);
        inputs_.push_back({sequence, row(begin).ids.subspan(node.depth, shared - node.depth), Phase::prompt});
        next_.push_back({begin, end, shared, sequence});
      }
      begin = end;
    }
    if (node.sequence >= 0) session_.close(node.sequence);
  }

  void leaf(std::size_t i, std::size_t depth, SequenceId prefix) {
    PrefillRow& target = row(i);
    if (target.after >= 0)
      target.sequence = session_.fork(target.after, {.next_turn = true, .steering = target.steering});
    else
      target.sequence = prefix < 0 ? session_.open({.steering = target.steering})
                                   : session_.fork(prefix, {.steering = target.steering});
    inputs_.push_back({target.sequence, target.ids.subspan(depth), Phase::prompt});
    next_.push_back({i, i + 1, target.ids.size(), -1});
  }

  void level() {
    const auto inputs = std::exchange(inputs_, {});
    const auto nodes = std::exchange(next_, {});
    const at::Tensor logits = session_.step(inputs, Logits::last);
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (nodes[n].sequence < 0)
        row(nodes[n].begin).logits = logits[static_cast<std::int64_t>(n)];
      else
        split(nodes[n]);
    }
  }

  Session& session_;
  std::span<PrefillRow> rows_;
  std::vector<std::size_t> order_;
  std::vector<StepInput> inputs_;  ///< of the level being laid
  std::vector<Node> next_;         ///< beside them; sequence -1 marks a finished row
};

}  // namespace

void prefill(Session& session, std::span<PrefillRow> rows) { Trie(session, rows).run(); }

}  // namespace steer::generation::detail
