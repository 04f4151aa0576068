#include "steering/program.hpp"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include <steer/core/error.hpp>

#include "model/hook_table.hpp"
#include "steering/checks.hpp"
#include "steering/edits/operation.hpp"
#include "steering/table.hpp"

namespace steer::steering::detail {
namespace {

constexpr std::string_view kWhere = "SteeringPlan::compile";

std::string lower_stem(std::string text) {
  while (!text.empty() && text.back() == '/') text.pop_back();
  if (const auto slash = text.rfind('/'); slash != std::string::npos) text.erase(0, slash + 1);
  for (char& c : text) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// Compiles the rows of one plan. Built for one call.
class Compiler {
 public:
  Compiler(const ModelConfig& config, bool has_tokenizer, const PlanOptions& options)
      : config_(config), has_tokenizer_(has_tokenizer), options_(options) {}

  CompiledPlan run(std::span<const Steering> rows) {
    group_equal(rows);
    for (std::size_t i = 0; i < distinct_.size(); ++i) check_and_collect(*distinct_[i], row_of_distinct_[i]);
    for (const auto& [order, point] : points_) plan_.points.push_back(point);
    for (const HookPoint& point : plan_.points) builders_.at(point).gather();
    for (const Steering* steering : distinct_) plan_.programs.push_back(compile(*steering));
    for (const HookPoint& point : plan_.points) plan_.tables.push_back(builders_.at(point).finish());
    return std::move(plan_);
  }

 private:
  void group_equal(std::span<const Steering> rows) {
    std::unordered_multimap<std::string, int> seen;
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const std::string key = rows[row].describe();
      int program = -1;
      for (auto [it, end] = seen.equal_range(key); it != end && program < 0; ++it)
        if (*distinct_[it->second] == rows[row]) program = it->second;
      if (program < 0) {
        program = static_cast<int>(distinct_.size());
        distinct_.push_back(&rows[row]);
        row_of_distinct_.push_back(row);
        seen.emplace(key, program);
      }
      plan_.program_of_row.push_back(program);
    }
  }

  // ---- first pass: check everything, note which constants are needed

  void check_and_collect(const Steering& steering, std::size_t row) {
    for (std::size_t i = 0; i < steering.edits().size(); ++i) {
      const Edit& edit = steering.edits()[i];
      const std::string what =
          fmt::format("row {}, edit {} ({})", row, i, edit.name.empty() ? edit.describe() : edit.name);
      edit.validate(kWhere);
      check_scope(edit.scope, what);
      const Lowered lowered = edit.op->lower(edit);
      check_op(edit, lowered, what);
      if (edit.when) {
        check_condition(*edit.when, what);
        check_order(*edit.when, edit.point, what);
      }
      if (is_identity(edit)) continue;
      if (edit.when) collect_condition(*edit.when);
      collect_op(edit, lowered);
    }
    for (std::size_t i = 0; i < steering.watches().size(); ++i) {
      const Watch& watch = steering.watches()[i];
      watch.when.validate(kWhere);
      check_condition(watch.when, fmt::format("row {}, watch {} ({})", row, i, watch.reason));
      collect_condition(watch.when);
    }
  }

  void check_scope(const Scope& scope, const std::string& what) {
    const bool tagged = scope.where == Where::inside_tag || scope.where == Where::outside_tag;
    require(!tagged || has_tokenizer_, ErrorCode::config, kWhere,
            "expected a model with a tokenizer for the tag scope of {} but got one without", what);
    require(scope.where != Where::span || config_.context == 0 || scope.begin < config_.context, ErrorCode::argument,
            kWhere, "expected a span within the model's context of {} but got [{}, {}) in {}: it can match nothing",
            config_.context, scope.begin, scope.end, what);
    for (std::int64_t id : scope.tokens)
      require(config_.vocab_size == 0 || id < config_.vocab_size, ErrorCode::argument, kWhere,
              "expected token ids in [0, {}) but got {} in the scope of {}", config_.vocab_size, id, what);
    for (const Scope& except : scope.except) check_scope(except, what);
  }

  void check_width(std::int64_t got, const HookPoint& point, std::string_view of, const std::string& what) {
    const std::int64_t width = point_width(config_, point, kWhere);
    require(got == width, ErrorCode::shape, kWhere, "expected {} of width {} ({}) but got {} in {}", of, width,
            point.name(), got, what);
  }

  void check_model_name(const Sae& sae, const std::string& what) {
    const std::string theirs = lower_stem(sae.config().model_name), ours = lower_stem(config_.name);
    if (options_.model_mismatch == ModelMismatch::ignore || theirs.empty() || ours.empty()) return;
    if (theirs.find(ours) != std::string::npos || ours.find(theirs) != std::string::npos) return;
    const std::string message =
        fmt::format("an SAE made for \"{}\" is used on \"{}\" in {}", sae.config().model_name, config_.name, what);
    require(options_.model_mismatch != ModelMismatch::error, ErrorCode::config, kWhere,
            "expected an SAE of this model but got: {}; PlanOptions::model_mismatch decides", message);
    warn(message);
  }

  void check_place(const std::optional<HookPoint>& trained, const HookPoint& used, const std::string& what) {
    if (!trained || *trained == used) return;
    const auto same = [](const HookPoint& a, const HookPoint& b) {
      return a.site == Site::resid_post && b.site == Site::resid_pre && a.layer + 1 == b.layer;
    };
    if (same(*trained, used) || same(used, *trained)) return;
    warn(fmt::format("an SAE trained at {} is used at {} in {}", trained->name(), used.name(), what));
  }

  void warn(const std::string& message) {
    if (std::find(plan_.warnings.begin(), plan_.warnings.end(), message) == plan_.warnings.end())
      plan_.warnings.push_back(message);
  }

  void check_op(const Edit& edit, const Lowered& lowered, const std::string& what) {
    point_width(config_, edit.point, kWhere);
    for (const Field& field : edit.op->fields())
      if (const auto* vector = std::get_if<at::Tensor>(&field.value))
        check_width(vector->numel(), edit.point, "a vector", what);
    if (const auto& f = lowered.feature) {
      require(!f->read || !f->sae.config().transcoder, ErrorCode::unsupported, kWhere,
              "expected an edit that does not read a transcoder's feature but got {}: it reads one place and writes "
              "another",
              what);
      check_sae(f->sae, edit.point, f->read, what);
      const SaeConfig& c = f->sae.config();
      check_place(c.hook_out ? c.hook_out : c.hook_in, edit.point, what);
    }
    if (lowered.sae) {
      check_sae(*lowered.sae, edit.point, /*read=*/true, what);
      check_place(lowered.sae->config().hook_in, edit.point, what);
    }
  }

  void check_sae(const Sae& sae, const HookPoint& point, bool read, const std::string& what) {
    check_width(sae.config().d_out, point, "an SAE output", what);
    if (read) check_width(sae.config().d_in, point, "an SAE input", what);
    check_model_name(sae, what);
  }

  void check_condition(const Condition& condition, const std::string& what) {
    for (const Condition& part : condition.parts) check_condition(part, what);
    if (condition.source == ConditionSource::feature) {
      check_width(condition.sae->config().d_in, condition.point, "an SAE input", what);
      check_model_name(*condition.sae, what);
    }
    if (condition.source == ConditionSource::probe)
      check_width(condition.probe.numel(), condition.point, "a probe", what);
  }

  void check_order(const Condition& condition, const HookPoint& edit, const std::string& what) {
    for (const Condition& part : condition.parts) check_order(part, edit, what);
    const bool reads = condition.source == ConditionSource::feature || condition.source == ConditionSource::probe;
    require(!reads || order_of(condition.point) <= order_of(edit), ErrorCode::argument, kWhere,
            "expected a condition that is known when the edit acts but got one at {} behind the edit at {} in {}",
            condition.point.name(), edit.name(), what);
  }

  TableBuilder& builder(const HookPoint& point) {
    points_.emplace(order_of(point), point);
    return builders_.try_emplace(point, point_width(config_, point, kWhere)).first->second;
  }

  void collect_condition(const Condition& condition) {
    for (const Condition& part : condition.parts) collect_condition(part);
    if (condition.source == ConditionSource::feature) {
      TableBuilder& table = builder(condition.point);
      if (condition.sae->per_feature()) table.want(*condition.sae, condition.feature, TableBuilder::Side::encoder);
    }
    if (condition.source == ConditionSource::probe) builder(condition.point);
  }

  void collect_op(const Edit& edit, const Lowered& lowered) {
    TableBuilder& table = builder(edit.point);
    const auto& f = lowered.feature;
    if (!f) return;
    table.want(f->sae, f->index, TableBuilder::Side::decoder);
    if (f->read && f->sae.per_feature()) table.want(f->sae, f->index, TableBuilder::Side::encoder);
  }

  // ---- second pass: programs over the gathered constants

  int point_index(const HookPoint& point) const {
    const auto it = std::find(plan_.points.begin(), plan_.points.end(), point);
    return static_cast<int>(it - plan_.points.begin());
  }

  std::unique_ptr<Program> compile(const Steering& steering) {
    auto program = std::make_unique<Program>();
    program->points.resize(plan_.points.size());
    conditions_.clear();
    points_of_nodes_.clear();
    std::map<int, std::vector<int>> edits_at;  // point -> edits in order
    for (std::size_t i = 0; i < steering.edits().size(); ++i) {
      const Edit& edit = steering.edits()[i];
      EditAudit& line = program->audit.emplace_back();
      line.edit = edit.name.empty() ? edit.describe() : edit.name;
      line.point = edit.point;
      if (!is_identity(edit)) edits_at[point_index(edit.point)].push_back(static_cast<int>(i));
    }
    std::vector<int> node_of_edit(steering.edits().size(), -1);
    for (const auto& [point, edits] : edits_at)
      for (int i : edits)
        if (const auto& when = steering.edits()[i].when) node_of_edit[i] = node(*when, *program);
    std::vector<CompiledWatch> watches;
    for (const Watch& watch : steering.watches())
      watches.push_back({node(watch.when, *program), watch.reason, watch.abort, watch.handler});
    place_nodes(*program, edits_at, watches);
    for (const auto& [point, edits] : edits_at) {
      PointProgram& at = point_program(*program, point);
      at.slots = edits;
      at.instructions = instructions(steering, edits, node_of_edit, *program, builders_.at(plan_.points[point]));
    }
    for (auto& point : program->points)
      if (point) count_dots(*point, *program);
    return program;
  }

  PointProgram& point_program(Program& program, int point) {
    if (!program.points[point]) program.points[point].emplace();
    return *program.points[point];
  }

  /// The node of a condition and of its parts, each compiled once a program.
  int node(const Condition& condition, Program& program) {
    for (const auto& [known, index] : conditions_)
      if (*known == condition) return index;
    Node node;
    node.source = condition.source;
    node.above = condition.above;
    node.at_most = condition.at_most;
    node.release = condition.release;
    node.sticky = condition.sticky;
    for (const Condition& part : condition.parts) node.parts.push_back(this->node(part, program));
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
        program.wants_entropy = true;
        break;
      default:
        node.entropy_only = std::all_of(node.parts.begin(), node.parts.end(),
                                        [&](int part) { return program.nodes[part].entropy_only; });
        break;
    }
    const int index = static_cast<int>(program.nodes.size());
    program.nodes.push_back(std::move(node));
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

  void place_nodes(Program& program, const std::map<int, std::vector<int>>& edits_at,
                   std::vector<CompiledWatch>& watches) {
    int first = edits_at.empty() ? -1 : edits_at.begin()->first;
    for (int point : points_of_nodes_)
      if (point >= 0) first = first < 0 ? point : std::min(first, point);
    std::vector<bool> observed(program.nodes.size(), false);  // known to a watch as soon as the entropy is
    for (const CompiledWatch& watch : watches)
      if (program.nodes[watch.node].entropy_only) mark(program, watch.node, observed);
    for (std::size_t i = 0; i < program.nodes.size(); ++i) {
      if (observed[i]) {
        program.entropy_nodes.push_back(static_cast<int>(i));
      } else {
        const int point = program.nodes[i].entropy_only ? first : points_of_nodes_[i];
        point_program(program, point).nodes.push_back(static_cast<int>(i));
      }
    }
    for (CompiledWatch& watch : watches) {
      if (program.nodes[watch.node].entropy_only)
        program.entropy_watches.push_back(std::move(watch));
      else
        point_program(program, points_of_nodes_[watch.node]).watches.push_back(std::move(watch));
    }
  }

  static void mark(const Program& program, int node, std::vector<bool>& marked) {
    marked[node] = true;
    for (int part : program.nodes[node].parts) mark(program, part, marked);
  }

  void note_tags(const Scope& scope, Program& program, std::vector<int>& tags) {
    if (!scope.tag.empty()) {
      auto it = std::find(program.tags.begin(), program.tags.end(), scope.tag);
      if (it == program.tags.end()) it = program.tags.insert(it, scope.tag);
      tags.push_back(static_cast<int>(it - program.tags.begin()));
    }
    for (const Scope& except : scope.except) note_tags(except, program, tags);
  }

  std::vector<Instruction> instructions(const Steering& steering, const std::vector<int>& edits,
                                        const std::vector<int>& node_of_edit, Program& program, TableBuilder& table) {
    std::vector<Instruction> result;
    std::vector<Lowered> lowered;
    std::vector<Member> members;
    for (std::size_t i = 0; i < edits.size(); ++i) {
      const Edit& edit = steering.edits()[static_cast<std::size_t>(edits[i])];
      Member& m = members.emplace_back();
      lowered.push_back(edit.op->lower(edit));
      m.line = static_cast<int>(i);
      m.selection = {edit.scope, {}, node_of_edit[static_cast<std::size_t>(edits[i])]};
      note_tags(edit.scope, program, m.selection.tags);
      m.change = lowered.back().change;
      m.change.by_norm |= edit.unit == Unit::residual_norm;
    }
    std::size_t constants_from = 0;  // instructions from here on may take more constants
    for (std::size_t i = 0; i < edits.size();) {
      // A run of edits on one SAE reads all its features first and writes once.
      std::size_t end = i + 1;
      bool constant = adds_constant(lowered[i]);
      while (end < edits.size() && same_sae(lowered[i], lowered[end])) constant &= adds_constant(lowered[end++]);
      if (constant) {
        for (; i < end; ++i) add_constant(result, constants_from, lowered[i], std::move(members[i]), table);
        continue;
      }
      if (lowered[i].feature)
        result.push_back(
            feature_instruction(std::span(lowered).subspan(i, end - i), std::span(members).subspan(i), table));
      else
        result.push_back(instruction(lowered[i], std::move(members[i]), table));
      constants_from = result.size();
      i = end;
    }
    return result;
  }

  static bool same_sae(const Lowered& a, const Lowered& b) {
    return a.feature && b.feature && a.feature->sae.hash() == b.feature->sae.hash();
  }

  /// Whether it adds the same vector to every token, but for the unit.
  static bool adds_constant(const Lowered& e) {
    if (e.feature) return !e.feature->read && e.feature->sae.config().normalization == SaeNormalization::none;
    return e.channels.size() == 1 && e.channels[0].reading == Reading::nothing;
  }

  /// Sums the vectors that the same tokens get. Constants between two other edits commute, so their order is free.
  static void add_constant(std::vector<Instruction>& done, std::size_t from, const Lowered& e, Member m,
                           TableBuilder& table) {
    at::Tensor vector = e.feature
                            ? table.row(table.place(e.feature->sae, e.feature->index, TableBuilder::Side::decoder))
                            : e.channels[0].write;
    vector = vector.to(at::kDouble);
    if (m.change.by_norm) vector = vector / std::max(norm_of(vector), 1e-30);
    vector = vector * (static_cast<double>(m.change.strength) * static_cast<double>(m.change.constant));
    const auto size = static_cast<float>(norm_of(vector));
    for (std::size_t i = from; i < done.size(); ++i) {
      Instruction& other = done[i];
      const Member& first = other.members.front();
      if (first.selection != m.selection || first.change.by_norm != m.change.by_norm) continue;
      int& row = other.registers.front().write;
      row = table.add(table.row(row).to(at::kDouble) + vector);
      other.members.push_back(std::move(m));
      other.sizes.push_back(size);
      return;
    }
    Instruction fresh;
    fresh.constant = true;
    fresh.registers.emplace_back().write = table.add(vector);
    fresh.members.push_back(std::move(m));
    fresh.sizes.push_back(size);
    done.push_back(std::move(fresh));
  }

  static Instruction feature_instruction(std::span<const Lowered> edits, std::span<Member> members,
                                         TableBuilder& table) {
    Instruction result;
    const Sae& sae = edits.front().feature->sae;
    result.sae = sae;
    result.normalization = sae.config().normalization;
    std::map<std::int64_t, bool> reads;
    for (const Lowered& e : edits) reads[e.feature->index] |= e.feature->read;
    std::map<std::int64_t, int> number;  // feature -> register
    for (std::size_t i = 0; i < edits.size(); ++i) {
      const std::int64_t feature = edits[i].feature->index;
      const auto [it, fresh] = number.emplace(feature, static_cast<int>(result.registers.size()));
      if (fresh) {
        Register r = reads[feature] ? feature_register(sae, feature, table) : Register{.feature = feature};
        r.write = table.place(sae, feature, TableBuilder::Side::decoder);
        r.write_norm = static_cast<float>(norm_of(table.row(r.write)));
        result.full |= r.reading == Reading::encode;
        result.registers.push_back(r);
      }
      members[i].change.first = it->second;
      result.members.push_back(std::move(members[i]));
    }
    return result;
  }

  static Instruction instruction(const Lowered& e, Member m, TableBuilder& table) {
    Instruction result;
    result.function = e.function;
    for (const Lowered::Channel& channel : e.channels) {
      Register& r = result.registers.emplace_back();
      r.reading = channel.reading;
      r.write_norm = 1;
      if (channel.read.defined()) r.read = table.add(channel.read);
      if (channel.write.defined()) {
        r.write = table.add(channel.write);
        r.write_norm = static_cast<float>(norm_of(channel.write));
      }
      r.offset = static_cast<float>(channel.offset);
    }
    result.sae = e.sae;
    result.members.push_back(std::move(m));
    return result;
  }

  static void count_dots(PointProgram& point, const Program& program) {
    const auto dots = [](const Register& r) -> std::int64_t {
      return r.reading == Reading::dot || r.reading == Reading::feature;
    };
    for (int node : point.nodes) {
      const Node& n = program.nodes[static_cast<std::size_t>(node)];
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
  bool has_tokenizer_;
  const PlanOptions& options_;
  CompiledPlan plan_;
  std::vector<const Steering*> distinct_;
  std::vector<std::size_t> row_of_distinct_;
  std::map<PointOrder, HookPoint> points_;
  std::map<HookPoint, TableBuilder> builders_;
  std::vector<std::pair<const Condition*, int>> conditions_;  // of the program being compiled
  std::vector<int> points_of_nodes_;                          // of the same
};

}  // namespace

PointOrder order_of(const HookPoint& point) {
  if (point.site == Site::embed) return {-1, point.site};
  if (point.site == Site::ln_final) return {std::numeric_limits<std::int64_t>::max(), point.site};
  return {point.layer, point.site};
}

std::int64_t point_width(const ModelConfig& config, const HookPoint& point, std::string_view where) {
  const std::string why_not = model::detail::why_not_computed(config, point);
  require(why_not.empty(), ErrorCode::argument, where, "expected a hook point this model computes but got {}: {}",
          point.name(), why_not);
  require(point.site != Site::attn_pattern, ErrorCode::unsupported, where,
          "expected a point with one row a token but got {}; use Session::hook", point.name());
  return model::detail::hook_width(config, point);
}

CompiledPlan compile_plan(const ModelConfig& config, bool has_tokenizer, std::span<const Steering> rows,
                          const PlanOptions& options) {
  return Compiler(config, has_tokenizer, options).run(rows);
}

}  // namespace steer::steering::detail
