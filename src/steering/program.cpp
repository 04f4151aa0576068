#include "steering/program.hpp"

#include <algorithm>
#include <map>

#include <steer/core/error.hpp>

#include "steering/edits/operation.hpp"
#include "steering/join.hpp"
#include "steering/table.hpp"

namespace steer::steering::detail {
namespace {

constexpr std::string_view kProgram = "Steering";

/// Compiles one steering. Built for one call.
class Compiler {
 public:
  explicit Compiler(const ModelConfig& config) : config_(config) {}

  Program run(const Steering& steering) {
    collect(steering);
    for (const auto& [order, place] : points_) program_.places.push_back(place);
    for (const HookPoint& place : program_.places) builders_.at(place).gather();
    compile(steering);
    for (std::size_t i = 0; i < program_.places.size(); ++i)
      program_.points[i].table = builders_.at(program_.places[i]).finish();
    return std::move(program_);
  }

 private:
  // ---- first pass: note which constants are needed

  void collect(const Steering& steering) {
    for (const Edit& edit : steering.edits()) {
      if (is_identity(edit)) continue;
      if (edit.when) collect_condition(*edit.when);
      collect_op(edit, edit.op->lower(edit));
    }
    for (const Watch& watch : steering.watches()) collect_condition(watch.when);
  }

  TableBuilder& builder(const HookPoint& point) {
    points_.emplace(order_of(point), point);
    const std::int64_t width = point.site == Site::attn_pattern ? 0 : point_width(config_, point, kProgram);
    return builders_.try_emplace(point, width).first->second;
  }

  void collect_condition(const Condition& condition) {
    for (const Condition& part : condition.parts) collect_condition(part);
    if (condition.source == ConditionSource::feature) {
      TableBuilder& table = builder(condition.point);
      if (condition.sae->per_feature())
        table.want(*condition.sae, condition.feature, TableBuilder::TargetSide::encoder);
    }
    if (condition.source == ConditionSource::probe) builder(condition.point);
  }

  void collect_op(const Edit& edit, const Lowered& lowered) {
    TableBuilder& table = builder(edit.point);
    const auto& f = lowered.feature;
    if (!f) return;
    table.want(f->sae, f->index, TableBuilder::TargetSide::decoder);
    if (f->read && f->sae.per_feature()) table.want(f->sae, f->index, TableBuilder::TargetSide::encoder);
  }

  // ---- second pass: programs over the gathered constants

  int point_index(const HookPoint& point) const {
    const auto it = std::find(program_.places.begin(), program_.places.end(), point);
    return static_cast<int>(it - program_.places.begin());
  }

  void compile(const Steering& steering) {
    program_.points.resize(program_.places.size());
    std::map<int, std::vector<int>> edits_at;  // point -> edits in order
    for (std::size_t i = 0; i < steering.edits().size(); ++i) {
      const Edit& edit = steering.edits()[i];
      EditAudit& line = program_.audit.emplace_back();
      line.edit = edit.name.empty() ? edit.describe() : edit.name;
      line.point = edit.point;
      if (!is_identity(edit)) edits_at[point_index(edit.point)].push_back(static_cast<int>(i));
    }
    std::vector<int> node_of_edit(steering.edits().size(), -1);
    for (const auto& [point, edits] : edits_at)
      for (int i : edits)
        if (const auto& when = steering.edits()[static_cast<std::size_t>(i)].when)
          node_of_edit[static_cast<std::size_t>(i)] = node(*when);
    std::vector<CompiledWatch> watches;
    for (const Watch& watch : steering.watches())
      watches.push_back({node(watch.when), watch.reason, watch.abort, watch.handler});
    place_nodes(edits_at, watches);
    for (const auto& [point, edits] : edits_at) {
      at(point).slots = edits;
      at(point).instructions =
          instructions(steering, edits, node_of_edit, builders_.at(program_.places[static_cast<std::size_t>(point)]));
    }
    for (PointProgram& point : program_.points) count_dots(point);
  }

  PointProgram& at(int point) { return program_.points[static_cast<std::size_t>(point)]; }

  /// The node of a condition and of its parts, each compiled once a program.
  int node(const Condition& condition) {
    for (const auto& [known, index] : conditions_)
      if (*known == condition) return index;
    Node node;
    node.source = condition.source;
    node.band = {condition.above, condition.at_most, condition.release, condition.sticky};
    for (const Condition& part : condition.parts) node.parts.push_back(this->node(part));
    switch (condition.source) {
      case ConditionSource::feature: {
        TableBuilder& table = builder(condition.point);
        node.sae = condition.sae;
        node.normalization = condition.sae->config().normalization;
        node.read = feature_register(*condition.sae, condition.feature, table);
        break;
      }
      case ConditionSource::probe:
        node.read.reading = Reading::dot;
        node.read.read = builder(condition.point).add(condition.probe);
        node.read.offset = static_cast<float>(condition.bias);
        break;
      case ConditionSource::entropy:
        node.entropy_only = true;
        program_.wants_entropy = true;
        break;
      default:
        node.entropy_only = std::all_of(node.parts.begin(), node.parts.end(),
                                        [&](int part) { return program_.nodes[part].entropy_only; });
        break;
    }
    const int index = static_cast<int>(program_.nodes.size());
    program_.nodes.push_back(std::move(node));
    points_of_nodes_.push_back(resolve_point(condition));
    conditions_.emplace_back(&condition, index);
    return index;
  }

  /// The last point the condition reads; -1 when it reads none.
  int resolve_point(const Condition& condition) const {
    int last = condition.source == ConditionSource::feature || condition.source == ConditionSource::probe
                   ? point_index(condition.point)
                   : -1;
    for (const Condition& part : condition.parts) last = std::max(last, resolve_point(part));
    return last;
  }

  void place_nodes(const std::map<int, std::vector<int>>& edits_at, std::vector<CompiledWatch>& watches) {
    int first = edits_at.empty() ? -1 : edits_at.begin()->first;
    for (int point : points_of_nodes_)
      if (point >= 0) first = first < 0 ? point : std::min(first, point);
    std::vector<bool> observed(program_.nodes.size(), false);  // known to a watch as soon as the entropy is
    for (const CompiledWatch& watch : watches)
      if (program_.nodes[watch.node].entropy_only) mark(watch.node, observed);
    for (std::size_t i = 0; i < program_.nodes.size(); ++i) {
      if (observed[i]) {
        program_.entropy_nodes.push_back(static_cast<int>(i));
      } else {
        const int point = program_.nodes[i].entropy_only ? first : points_of_nodes_[i];
        at(point).nodes.push_back(static_cast<int>(i));
      }
    }
    for (CompiledWatch& watch : watches) {
      if (program_.nodes[watch.node].entropy_only)
        program_.entropy_watches.push_back(std::move(watch));
      else
        at(points_of_nodes_[watch.node]).watches.push_back(std::move(watch));
    }
  }

  void mark(int node, std::vector<bool>& marked) {
    marked[node] = true;
    for (int part : program_.nodes[node].parts) mark(part, marked);
  }

  void note_tags(const Scope& scope, std::vector<int>& tags) {
    if (!scope.tag.empty()) {
      auto it = std::find(program_.tags.begin(), program_.tags.end(), scope.tag);
      if (it == program_.tags.end()) it = program_.tags.insert(it, scope.tag);
      tags.push_back(static_cast<int>(it - program_.tags.begin()));
    }
    for (const Scope& except : scope.except) note_tags(except, tags);
  }

  std::vector<Instruction> instructions(const Steering& steering, const std::vector<int>& edits,
                                        const std::vector<int>& node_of_edit, TableBuilder& table) {
    std::vector<Lowered> lowered;
    std::vector<Member> members;
    for (std::size_t i = 0; i < edits.size(); ++i) {
      const Edit& edit = steering.edits()[static_cast<std::size_t>(edits[i])];
      Member& m = members.emplace_back();
      lowered.push_back(edit.op->lower(edit));
      m.line = static_cast<int>(i);
      m.selection = {edit.scope, {}, node_of_edit[static_cast<std::size_t>(edits[i])]};
      note_tags(edit.scope, m.selection.tags);
      m.change = lowered.back().change;
      m.change.by_norm |= edit.unit == StrengthUnit::residual_norm;
    }
    return join(lowered, std::move(members), table);
  }

  void count_dots(PointProgram& point) const {
    const auto dots = [](const Register& r) -> std::int64_t {
      return r.reading == Reading::dot || r.reading == Reading::feature;
    };
    for (int node : point.nodes) {
      const Node& n = program_.nodes[static_cast<std::size_t>(node)];
      point.dots += n.read.reading == Reading::encode ? n.sae->d_sae() : dots(n.read);
    }
    for (const Instruction& i : point.instructions) {
      if (i.bulk() && i.sae) point.dots += i.sae->d_sae();
      if (!i.bulk())
        for (const Register& r : i.registers) point.dots += dots(r);
    }
  }

  /// Whether the edit leaves every activation as it is.
  static bool is_identity(const Edit& edit) { return edit.strength == 0 || edit.op->identity(); }

  const ModelConfig& config_;
  Program program_;
  std::map<PointOrder, HookPoint> points_;
  std::map<HookPoint, TableBuilder> builders_;
  std::vector<std::pair<const Condition*, int>> conditions_;  // of nodes
  std::vector<int> points_of_nodes_;
};

}  // namespace

const PointProgram* Program::at(const HookPoint& place) const {
  const auto found = std::find(places.begin(), places.end(), place);
  return found == places.end() ? nullptr : &points[static_cast<std::size_t>(found - places.begin())];
}

Program compile_program(const ModelConfig& config, bool has_tokenizer, const Steering& steering) {
  auto warnings = check_fit(config, has_tokenizer, steering);
  Program program = Compiler(config).run(steering);
  program.warnings = std::move(warnings);
  return program;
}

}  // namespace steer::steering::detail
