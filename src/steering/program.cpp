#include "steering/program.hpp"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "steering/checks.hpp"

namespace steer::steering::detail {
namespace {

constexpr std::string_view kWhere = "SteeringPlan::compile";

/// Collects what one hook point needs of SAEs and vectors, each once, then reads all rows of an SAE in one go.
class TableBuilder {
 public:
  explicit TableBuilder(std::int64_t width) : width_(width) {}

  void want(const Sae& sae, std::int64_t feature, bool encoder) {
    auto& wanted = wanted_[sae.hash()];
    if (!wanted.sae) wanted.sae = sae;
    (encoder ? wanted.encoder : wanted.decoder).emplace(feature, -1);
  }

  void gather() {
    for (auto& [hash, wanted] : wanted_) {
      gather(wanted.encoder, [&](const auto& features) { return wanted.sae->encoder_rows(features); });
      gather(wanted.decoder, [&](const auto& features) { return wanted.sae->decoder_rows(features); });
    }
  }

  /// A row for any vector, shared with equal ones.
  int add(const at::Tensor& vector) {
    const at::Tensor row = vector.to(at::kFloat).contiguous();
    const auto* bytes = reinterpret_cast<const std::byte*>(row.const_data_ptr<float>());
    const auto [it, fresh] = by_content_.emplace(content_hash(std::span(bytes, row.numel() * sizeof(float))),
                                                 static_cast<int>(rows_.size()));
    if (fresh) rows_.push_back(row);
    return it->second;
  }

  const at::Tensor& row(int index) const { return rows_[index]; }
  int encoder(const Sae& sae, std::int64_t feature) const { return wanted_.at(sae.hash()).encoder.at(feature); }
  int decoder(const Sae& sae, std::int64_t feature) const { return wanted_.at(sae.hash()).decoder.at(feature); }

  ConstantTable finish() const {
    ConstantTable table{width_, at::empty({static_cast<std::int64_t>(rows_.size()), width_})};
    for (std::size_t i = 0; i < rows_.size(); ++i) table.rows[static_cast<std::int64_t>(i)].copy_(rows_[i]);
    return table;
  }

 private:
  struct Wanted {
    std::optional<Sae> sae;
    std::map<std::int64_t, int> encoder, decoder;  // feature -> row
  };
  template <class ReadRows>
  void gather(std::map<std::int64_t, int>& wanted, ReadRows read_rows) {
    std::vector<std::int64_t> features;
    for (const auto& [feature, row] : wanted) features.push_back(feature);
    if (features.empty()) return;
    const at::Tensor rows = read_rows(features).to(at::kCPU);
    for (std::size_t i = 0; i < features.size(); ++i) wanted[features[i]] = add(rows[static_cast<std::int64_t>(i)]);
  }

  std::int64_t width_;
  std::map<std::string, Wanted> wanted_;
  std::map<std::string, int> by_content_;
  std::vector<at::Tensor> rows_;
};

/// Whether the edit leaves every activation as it is, whatever it is.
bool is_identity(const Edit& edit) {
  if (edit.strength == 0) return true;
  if (const auto* f = std::get_if<op::Feature>(&edit.op)) {
    if (f->action == FeatureAction::nudge) return f->value == 0;
    if (f->action == FeatureAction::mul) return f->value == 1;
  }
  if (const auto* s = std::get_if<op::ScaleAlong>(&edit.op)) return s->factor == 1;
  if (const auto* r = std::get_if<op::Rotate>(&edit.op)) return r->angle == 0;
  if (const auto* g = std::get_if<op::GatedAdd>(&edit.op)) return g->a == 0;
  return false;
}

/// Nudges of an SAE without input normalisation add the same vector to every token.
bool adds_constant(const Edit& edit) {
  if (std::holds_alternative<op::Add>(edit.op)) return true;
  const auto* f = std::get_if<op::Feature>(&edit.op);
  return f && f->action == FeatureAction::nudge && f->sae.config().normalization == SaeNormalization::none;
}

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
      check_op(edit, what);
      if (edit.when) {
        check_condition(*edit.when, what);
        check_order(*edit.when, edit.point, what);
      }
      if (is_identity(edit)) continue;
      if (edit.when) collect_condition(*edit.when);
      collect_op(edit);
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

  void check_op(const Edit& edit, const std::string& what) {
    point_width(config_, edit.point, kWhere);
    const auto check_vector = [&](const at::Tensor& v) { check_width(v.numel(), edit.point, "a vector", what); };
    if (const auto* f = std::get_if<op::Feature>(&edit.op)) {
      const bool reads = f->action != FeatureAction::nudge;
      require(!reads || !f->sae.config().transcoder, ErrorCode::unsupported, kWhere,
              "expected a nudge of a transcoder's feature but got {}: it reads one place and writes another", what);
      check_width(f->sae.config().d_out, edit.point, "an SAE output", what);
      if (reads) check_width(f->sae.config().d_in, edit.point, "an SAE input", what);
      check_model_name(f->sae, what);
      check_place(f->sae.config().hook_out ? f->sae.config().hook_out : f->sae.config().hook_in, edit.point, what);
    } else if (const auto* s = std::get_if<op::Splice>(&edit.op)) {
      check_width(s->sae.config().d_in, edit.point, "an SAE input", what);
      check_width(s->sae.config().d_out, edit.point, "an SAE output", what);
      check_model_name(s->sae, what);
      check_place(s->sae.config().hook_in, edit.point, what);
    } else if (const auto* a = std::get_if<op::Add>(&edit.op)) {
      check_vector(a->vector);
    } else if (const auto* l = std::get_if<op::ScaleAlong>(&edit.op)) {
      check_vector(l->vector);
    } else if (const auto* p = std::get_if<op::ProjectTo>(&edit.op)) {
      check_vector(p->vector);
    } else if (const auto* r = std::get_if<op::Rotate>(&edit.op)) {
      check_vector(r->a);
    } else if (const auto* g = std::get_if<op::GatedAdd>(&edit.op)) {
      check_vector(g->w);
    }
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
      if (condition.sae->per_feature()) table.want(*condition.sae, condition.feature, /*encoder=*/true);
    }
    if (condition.source == ConditionSource::probe) builder(condition.point);
  }

  void collect_op(const Edit& edit) {
    TableBuilder& table = builder(edit.point);
    const auto* f = std::get_if<op::Feature>(&edit.op);
    if (!f) return;
    table.want(f->sae, f->index, /*encoder=*/false);
    if (f->action != FeatureAction::nudge && f->sae.per_feature()) table.want(f->sae, f->index, /*encoder=*/true);
  }

  // ---- second pass: programs over the gathered constants

  int point_index(const HookPoint& point) const {
    const auto it = std::find(plan_.points.begin(), plan_.points.end(), point);
    return static_cast<int>(it - plan_.points.begin());
  }

  FeatureRow feature_row(const Sae& sae, std::int64_t index, bool read, bool write, TableBuilder& table) {
    FeatureRow row;
    row.index = index;
    row.read = read;
    if (write) {
      row.decoder = table.decoder(sae, index);
      row.decoder_norm = static_cast<float>(norm_of(table.row(row.decoder)));
    }
    if (!read || !sae.per_feature()) return row;
    row.encoder = table.encoder(sae, index);
    const at::Tensor encoder = table.row(row.encoder).to(at::kDouble);
    const auto& c = sae.config();
    const auto at_index = [&](const at::Tensor& t) {
      return t.numel() == 1 ? t.item<double>() : t[index].item<double>();
    };
    row.encoder_sum = static_cast<float>(encoder.sum().item<double>());
    if (c.subtract_b_dec)
      row.offset = static_cast<float>(-at::dot(sae.b_dec().to(at::kCPU).to(at::kDouble), encoder).item<double>());
    if (c.activation == SaeActivation::gated) {
      row.gain = static_cast<float>(std::exp(at_index(sae.r_mag())));
      row.bias = static_cast<float>(at_index(sae.b_mag()));
      row.gate_bias = static_cast<float>(at_index(sae.b_gate()));
    } else {
      row.bias = row.gate_bias = static_cast<float>(at_index(sae.b_enc()));
      if (sae.threshold().defined()) row.threshold = static_cast<float>(at_index(sae.threshold()));
    }
    return row;
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
      at.stages = stages(steering, edits, node_of_edit, *program, builders_.at(plan_.points[point]));
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
        node.full = !condition.sae->per_feature();
        node.normalization = condition.sae->config().normalization;
        node.feature = feature_row(*condition.sae, condition.feature, /*read=*/true, /*write=*/false, table);
        break;
      }
      case ConditionSource::probe:
        node.probe = builder(condition.point).add(condition.probe);
        node.bias = static_cast<float>(condition.bias);
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

  Member member(const Edit& edit, std::size_t line, int node, Program& program) {
    Member m;
    m.line = static_cast<int>(line);
    m.scope = edit.scope;
    m.node = node;
    m.strength = static_cast<float>(edit.strength);
    m.by_norm = edit.unit == Unit::residual_norm;
    if (!edit.scope.tag.empty()) {
      auto it = std::find(program.tags.begin(), program.tags.end(), edit.scope.tag);
      if (it == program.tags.end()) it = program.tags.insert(it, edit.scope.tag);
      m.tag = static_cast<int>(it - program.tags.begin());
    }
    if (const auto* f = std::get_if<op::Feature>(&edit.op)) {
      const double unit = edit.unit == Unit::max_activation ? f->max_activation : 1;
      m.action = f->action;
      m.value = static_cast<float>(f->value * (f->action == FeatureAction::mul ? 1 : unit));
      m.low = static_cast<float>(f->low * unit);
      m.high = static_cast<float>(f->high * unit);
    }
    return m;
  }

  std::vector<Stage> stages(const Steering& steering, const std::vector<int>& edits,
                            const std::vector<int>& node_of_edit, Program& program, TableBuilder& table) {
    std::vector<Stage> result;
    const auto all = steering.edits();
    std::size_t constants_from = 0;  // stages from here on may take more constants
    for (std::size_t i = 0; i < edits.size();) {
      const Edit& edit = all[edits[i]];
      std::size_t end = i + 1;
      bool constant = adds_constant(edit);
      if (const auto* f = std::get_if<op::Feature>(&edit.op)) {
        while (end < edits.size() && same_sae(*f, all[edits[end]])) constant &= adds_constant(all[edits[end++]]);
      }
      if (constant) {
        for (; i < end; ++i)
          add_constant(result, constants_from, all[edits[i]], member(all[edits[i]], i, node_of_edit[edits[i]], program),
                       table);
        continue;
      }
      if (std::holds_alternative<op::Feature>(edit.op)) {
        result.push_back(feature_stage(all, edits, i, end, node_of_edit, program, table));
      } else {
        result.push_back(single_stage(edit, member(edit, i, node_of_edit[edits[i]], program), table));
      }
      constants_from = result.size();
      i = end;
    }
    return result;
  }

  static bool same_sae(const op::Feature& f, const Edit& other) {
    const auto* g = std::get_if<op::Feature>(&other.op);
    return g && g->sae.hash() == f.sae.hash();
  }

  /// Sums the vectors that the same tokens get. Constants between two other edits commute, so their order is free.
  void add_constant(std::vector<Stage>& stages, std::size_t from, const Edit& edit, Member m, TableBuilder& table) {
    at::Tensor vector;
    if (const auto* add = std::get_if<op::Add>(&edit.op)) {
      vector = add->vector.to(at::kDouble);
      if (m.by_norm) vector = vector / norm_of(vector);
      vector = vector * edit.strength;
    } else {
      const auto& f = std::get<op::Feature>(edit.op);
      vector = table.row(table.decoder(f.sae, f.index)).to(at::kDouble);
      if (m.by_norm) vector = vector / std::max(norm_of(vector), 1e-30);
      const double unit = edit.unit == Unit::max_activation ? f.max_activation : 1;
      vector = vector * (edit.strength * f.value * unit);
    }
    m.row_norm = static_cast<float>(norm_of(vector));
    for (std::size_t i = from; i < stages.size(); ++i) {
      Stage& stage = stages[i];
      const Member& first = stage.members.front();
      if (first.scope != m.scope || first.node != m.node || first.by_norm != m.by_norm) continue;
      stage.combined = table.add(table.row(stage.combined).to(at::kDouble) + vector);
      stage.members.push_back(std::move(m));
      return;
    }
    Stage stage;
    stage.kind = StageKind::constant;
    stage.combined = table.add(vector);
    stage.members.push_back(std::move(m));
    stages.push_back(std::move(stage));
  }

  Stage feature_stage(std::span<const Edit> all, const std::vector<int>& edits, std::size_t begin, std::size_t end,
                      const std::vector<int>& node_of_edit, Program& program, TableBuilder& table) {
    const Sae& sae = std::get<op::Feature>(all[edits[begin]].op).sae;
    Stage stage;
    stage.kind = StageKind::features;
    stage.sae = sae;
    stage.normalization = sae.config().normalization;
    std::map<std::int64_t, int> number;  // feature -> place in the stage
    for (std::size_t i = begin; i < end; ++i) {
      const auto& f = std::get<op::Feature>(all[edits[i]].op);
      auto [it, fresh] = number.emplace(f.index, static_cast<int>(stage.features.size()));
      if (fresh) stage.features.emplace_back().index = f.index;
      stage.features[it->second].read |= f.action != FeatureAction::nudge;
      Member m = member(all[edits[i]], i, node_of_edit[edits[i]], program);
      m.feature = it->second;
      stage.members.push_back(std::move(m));
    }
    for (FeatureRow& feature : stage.features)
      feature = feature_row(sae, feature.index, feature.read, /*write=*/true, table);
    stage.full = !sae.per_feature();
    return stage;
  }

  Stage single_stage(const Edit& edit, Member m, TableBuilder& table) {
    Stage stage;
    const auto unit_vector = [&](const at::Tensor& v) {
      const at::Tensor d = v.to(at::kDouble);
      return d / at::norm(d);
    };
    if (const auto* s = std::get_if<op::ScaleAlong>(&edit.op)) {
      stage.kind = StageKind::project;
      stage.a = table.add(unit_vector(s->vector));
      stage.factor = static_cast<float>(s->factor);
    } else if (const auto* p = std::get_if<op::ProjectTo>(&edit.op)) {
      stage.kind = StageKind::project;
      stage.a = table.add(unit_vector(p->vector));
      stage.to_target = true;
      stage.side = p->side;
      stage.target = static_cast<float>(p->target);
    } else if (const auto* r = std::get_if<op::Rotate>(&edit.op)) {
      stage.kind = StageKind::rotate;
      const at::Tensor a = unit_vector(r->a);
      const at::Tensor b = r->b.to(at::kDouble);
      stage.a = table.add(a);
      stage.b = table.add(unit_vector(b - at::dot(a, b) * a));
      stage.cosine = static_cast<float>(std::cos(edit.strength * r->angle));
      stage.sine = static_cast<float>(std::sin(edit.strength * r->angle));
      m.strength = 1;
    } else if (const auto* g = std::get_if<op::GatedAdd>(&edit.op)) {
      stage.kind = StageKind::gated;
      stage.a = table.add(g->w);
      stage.b = table.add(g->z);
      stage.b_norm = static_cast<float>(norm_of(g->z));
      stage.gate_bias = static_cast<float>(g->b);
      stage.gain = static_cast<float>(g->a);
    } else if (const auto* sp = std::get_if<op::Splice>(&edit.op)) {
      stage.kind = StageKind::splice;
      stage.sae = sp->sae;
      stage.with_error = sp->with_error;
    } else if (const auto* n = std::get_if<op::NormCap>(&edit.op)) {
      stage.kind = StageKind::cap_norm;
      stage.target = static_cast<float>(n->limit);
    } else if (std::holds_alternative<op::KeepNorm>(edit.op)) {
      stage.kind = StageKind::keep_norm;
    } else {
      stage.kind = StageKind::custom;
      stage.function = std::get<op::Custom>(edit.op).function;
    }
    stage.members.push_back(std::move(m));
    return stage;
  }

  static void count_dots(PointProgram& point, const Program& program) {
    for (int node : point.nodes) {
      const Node& n = program.nodes[node];
      if (n.full)
        point.dots += n.sae->d_sae();
      else
        point.dots += n.source == ConditionSource::feature || n.source == ConditionSource::probe;
    }
    for (const Stage& stage : point.stages) {
      if (stage.full || stage.kind == StageKind::splice)
        point.dots += stage.sae->d_sae();
      else if (stage.kind == StageKind::features)
        point.dots += std::count_if(stage.features.begin(), stage.features.end(), [](const auto& f) { return f.read; });
      else if (stage.kind == StageKind::project || stage.kind == StageKind::gated)
        point.dots += 1;
      else if (stage.kind == StageKind::rotate)
        point.dots += 2;
    }
  }

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
  const bool layerless = point.site == Site::embed || point.site == Site::ln_final;
  require(layerless ? point.layer == 0 : point.layer >= 0 && point.layer < config.n_layers, ErrorCode::argument, where,
          "expected a layer in [0, {}) but got {}", config.n_layers, point.name());
  require(point.site != Site::resid_mid || !config.parallel_residual, ErrorCode::argument, where,
          "expected a hook point this model has but got {}: its blocks add attention and MLP in parallel",
          point.name());
  switch (point.site) {
    case Site::attn_q:
    case Site::attn_z:
      return config.n_heads * config.d_head;
    case Site::attn_k:
    case Site::attn_v:
      return config.n_kv_heads * config.d_head;
    case Site::mlp_pre:
    case Site::mlp_post:
      return config.d_mlp;
    case Site::attn_pattern:
      fail(ErrorCode::unsupported, where, "expected a point with one row a token but got {}; use Session::hook",
           point.name());
    default:
      return config.d_model;
  }
}

CompiledPlan compile_plan(const ModelConfig& config, bool has_tokenizer, std::span<const Steering> rows,
                          const PlanOptions& options) {
  return Compiler(config, has_tokenizer, options).run(rows);
}

}  // namespace steer::steering::detail
