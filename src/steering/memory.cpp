// What a steering remembers of one sequence.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "steering/runtime.hpp"

namespace steer::steering::detail {

void TagTracker::push(std::string_view text) {
  tail_ += text;
  for (;;) {
    const std::string& wanted = inside_ ? close_ : open_;
    const auto at = tail_.find(wanted);
    if (at == std::string::npos) break;
    inside_ = !inside_;
    tail_.erase(0, at + wanted.size());
  }
  const std::size_t keep = close_.size() - 1;
  if (tail_.size() > keep) tail_.erase(0, tail_.size() - keep);
}

SteeringMemory::SteeringMemory(const Program& program, const std::optional<Tokenizer>& tokenizer)
    : program_(&program),
      tokenizer_(tokenizer),
      on_(program.nodes.size()),
      tags_(program.tags.begin(), program.tags.end()),
      inside_(program.tags.size()),
      entropy_watch_on_(program.entropy_watches.size()),
      counters_(program.audit.size()) {}

void SteeringMemory::see(std::int64_t position, std::span<const std::int64_t> ids) {
  if (tags_.empty()) return;
  const auto end = position + static_cast<std::int64_t>(ids.size());
  for (auto p = static_cast<std::int64_t>(ids_.size()); p < end; ++p) {
    const std::int64_t id = ids[static_cast<std::size_t>(p - position)];
    ids_.push_back(id);
    // One token at a time: a tag is ASCII, so bytes of a character that is cut in two do not matter.
    const std::string text = tokenizer_->decode(std::span(&id, 1));
    for (std::size_t t = 0; t < tags_.size(); ++t) {
      tags_[t].push(text);
      inside_[t].push_back(tags_[t].inside());
    }
  }
}

void SteeringMemory::truncate(std::int64_t length) {
  const auto n = static_cast<std::size_t>(length);
  recall();
  for (auto& history : on_)
    if (history.size() > n) history.resize(n);
  // What was observed says how the token at `length` was drawn: that is known.
  if (entropy_.size() > n + 1) entropy_.resize(n + 1);
  if (aborted_ && aborted_->first > length) aborted_.reset();
  if (ids_.size() <= n) return;
  // Tags are followed anew.
  const auto ids = std::vector(ids_.begin(), ids_.begin() + length);
  ids_.clear();
  tags_ = {program_->tags.begin(), program_->tags.end()};
  inside_.assign(tags_.size(), {});
  see(0, ids);
}

void SteeringMemory::observe(SequenceId sequence, std::int64_t position, const at::Tensor& logits) {
  const at::NoGradGuard no_grad;
  const at::Tensor log_p = at::log_softmax(logits.reshape(-1).to(at::kFloat), 0);
  // Tokens of probability 0 add nothing; 0 * -inf would.
  const double entropy = -at::where(at::isfinite(log_p), log_p.exp() * log_p, 0.0).sum().item<double>();
  entropy_.resize(static_cast<std::size_t>(position) + 1, std::numeric_limits<double>::quiet_NaN());
  entropy_.back() = entropy;
  recall();
  for (int node : program_->entropy_nodes) decide(node, position, entropy);
  for (std::size_t i = 0; i < program_->entropy_watches.size(); ++i) {
    const CompiledWatch& watch = program_->entropy_watches[i];
    const bool now = holds(watch.node, position);
    if (now && !entropy_watch_on_[i]) notify(sequence, watch, position);
    entropy_watch_on_[i] = now;
  }
}

std::optional<std::string> SteeringMemory::abort_reason() const {
  if (!aborted_) return std::nullopt;
  return aborted_->second;
}

void SteeringMemory::notify(SequenceId sequence, const CompiledWatch& watch, std::int64_t position) {
  if (watch.abort && !aborted_) aborted_ = {position, watch.reason};
  if (watch.handler) (*watch.handler)({.sequence = sequence, .position = position, .reason = watch.reason});
}

void SteeringMemory::decide(int node, std::int64_t position, double value) {
  const Node& n = program_->nodes[static_cast<std::size_t>(node)];
  const bool before = holds(node, position - 1);
  const auto part = [&](int p) { return holds(p, position); };
  bool now = false;
  if (n.source == ConditionSource::all_of)
    now = std::ranges::all_of(n.parts, part) || (n.band.sticky && before);
  else if (n.source == ConditionSource::any_of)
    now = std::ranges::any_of(n.parts, part) || (n.band.sticky && before);
  else
    now = n.band.holds(value, before);
  remember(node, position, now);
}

void SteeringMemory::remember(int node, std::int64_t position, bool now) {
  auto& history = on_[static_cast<std::size_t>(node)];
  const auto place = static_cast<std::size_t>(position);
  if (history.size() <= place) history.resize(place + 1, 0);
  history[place] = now;
}

void SteeringMemory::recall() {
  for (const auto& [position, decided] : told_) {
    const std::uint8_t* const states = decided();
    for (std::size_t node = 0; node < on_.size(); ++node)
      remember(static_cast<int>(node), position, (states[node] & kHolds) != 0);
  }
  told_.clear();
}

void SteeringMemory::count(const PointProgram& point, std::int64_t tokens, const float* changes) {
  const auto lines = static_cast<std::int64_t>(point.slots.size());
  for (std::int64_t line = 0; line < lines; ++line) {
    EditCounters& c = counters_[static_cast<std::size_t>(point.slots[static_cast<std::size_t>(line)])];
    c.seen += tokens;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float relative = changes[t * lines + line];
      if (relative == kOutOfScope) continue;
      ++c.in_scope;
      if (relative == 0) continue;
      ++c.edited;
      c.sum += relative;
      c.max = std::max(c.max, static_cast<double>(relative));
    }
  }
}

void SteeringMemory::count_later(const PointProgram& point, at::Tensor changes) {
  constexpr std::size_t most_pending = 1024;
  pending_.push_back({std::move(changes), &point});
  if (pending_.size() >= most_pending) settle();
}

void SteeringMemory::settle() {
  for (const Pending& wait : pending_) {
    const at::Tensor host = wait.changes.to(at::kCPU).contiguous();
    count(*wait.point, host.size(0), host.const_data_ptr<float>());
  }
  pending_.clear();
}

SteeringAudit SteeringMemory::audit() const {
  SteeringMemory settled = *this;
  settled.settle();
  SteeringAudit audit{program_->audit};
  for (std::size_t i = 0; i < audit.edits.size(); ++i) {
    const EditCounters& c = settled.counters_[i];
    EditAudit& line = audit.edits[i];
    line.seen = c.seen;
    line.in_scope = c.in_scope;
    line.edited = c.edited;
    line.mean_change = c.edited ? c.sum / static_cast<double>(c.edited) : 0;
    line.max_change = c.max;
  }
  return audit;
}

}  // namespace steer::steering::detail
