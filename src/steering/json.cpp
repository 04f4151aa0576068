// Steerings as JSON. Schema: docs/steering-schema.md.

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/steering/steering.hpp>

#include "steering/checks.hpp"
#include "steering/json_object.hpp"

namespace steer {
namespace {

using nlohmann::json;
using steering::detail::JsonObject;

constexpr std::string_view kFormat = "steer.steering";
constexpr int kVersion = 1;
constexpr int kDeepest = 32;  ///< conditions within conditions

std::string vector_hash(const at::Tensor& v) {
  const auto* bytes = reinterpret_cast<const std::byte*>(v.const_data_ptr<float>());
  return content_hash(std::span(bytes, v.numel() * sizeof(float)));
}

/// Writes one steering: inline, or with its vectors collected for a file beside it.
class Writer {
 public:
  Writer(const SteeringSaveOptions& options, bool collect, std::string_view where)
      : options_(options), collect_(collect), where_(where) {}

  json write(const Steering& steering) {
    json edits = json::array(), watches = json::array();
    for (std::size_t i = 0; i < steering.edits().size(); ++i)
      edits.push_back(edit(steering.edits()[i], fmt::format("edit {}", i)));
    for (std::size_t i = 0; i < steering.watches().size(); ++i) {
      const Watch& w = steering.watches()[i];
      require(!w.handler, ErrorCode::unsupported, where_,
              "expected what JSON can hold but watch {} ({}) calls a function", i, w.reason);
      watches.push_back({{"when", condition(w.when)}, {"reason", w.reason}, {"abort", w.abort}});
    }
    json result{{"format", kFormat}, {"version", kVersion}, {"edits", edits}};
    if (!watches.empty()) result["watches"] = watches;
    if (!saes_.empty()) result["saes"] = saes_;
    return result;
  }
  const std::vector<std::pair<std::string, at::Tensor>>& collected() const { return vectors_; }

 private:
  json vector(const at::Tensor& v) {
    if (!collect_) {
      const float* data = v.const_data_ptr<float>();
      return {{"values", std::vector<float>(data, data + v.numel())}};
    }
    const std::string hash = vector_hash(v);
    const auto known =
        std::find_if(vectors_.begin(), vectors_.end(), [&](const auto& entry) { return entry.first == hash; });
    if (known == vectors_.end()) vectors_.emplace_back(hash, v);
    return {{"tensor", hash}};
  }

  std::string sae(const Sae& sae) {
    json reference = json::object();
    if (const auto it = options_.sae_paths.find(sae.hash()); it != options_.sae_paths.end())
      reference["path"] = it->second.generic_string();
    if (!sae.config().model_name.empty()) reference["model_name"] = sae.config().model_name;
    saes_[sae.hash()] = reference;
    return sae.hash();
  }

  static json scope(const Scope& s) {
    json j{{"where", to_string(s.where)}};
    if (s.where == Where::onset) j["count"] = s.count;
    if (s.where == Where::span) j["begin"] = s.begin, j["end"] = s.end;
    if (!s.tag.empty()) j["tag"] = s.tag;
    if (s.include_bos) j["include_bos"] = true;
    return j;
  }

  json condition(const Condition& c) {
    json j{{"source", to_string(c.source)}};
    if (c.source == ConditionSource::feature || c.source == ConditionSource::probe) j["point"] = c.point.name();
    if (c.source == ConditionSource::feature) j["sae"] = sae(*c.sae), j["feature"] = c.feature;
    if (c.source == ConditionSource::probe) j["vector"] = vector(c.probe), j["bias"] = c.bias;
    if (std::isfinite(c.above)) j["above"] = c.above;
    if (std::isfinite(c.at_most)) j["at_most"] = c.at_most;
    if (c.release > 0) j["release"] = c.release;
    if (c.sticky) j["sticky"] = true;
    for (const Condition& part : c.parts) j["parts"].push_back(condition(part));
    return j;
  }

  json edit(const Edit& e, const std::string& what) {
    json j{{"kind", e.kind()}, {"point", e.point.name()}};
    if (const auto* a = std::get_if<op::Add>(&e.op)) j["vector"] = vector(a->vector);
    if (const auto* f = std::get_if<op::Feature>(&e.op)) feature(j, *f);
    if (const auto* s = std::get_if<op::ScaleAlong>(&e.op)) {
      j["vector"] = vector(s->vector);
      if (s->factor != 0) j["factor"] = s->factor;
    }
    if (const auto* p = std::get_if<op::ProjectTo>(&e.op)) {
      j["vector"] = vector(p->vector);
      j["target"] = p->target;
      j["side"] = to_string(p->side);
    }
    if (const auto* r = std::get_if<op::Rotate>(&e.op)) {
      j["a"] = vector(r->a);
      j["b"] = vector(r->b);
      j["radians"] = r->angle;
    }
    if (const auto* g = std::get_if<op::GatedAdd>(&e.op)) {
      j["gate"] = vector(g->w);
      j["gate_bias"] = g->b;
      j["vector"] = vector(g->z);
      j["gain"] = g->a;
    }
    if (const auto* s = std::get_if<op::Splice>(&e.op)) j["sae"] = sae(s->sae), j["with_error"] = s->with_error;
    if (const auto* n = std::get_if<op::NormCap>(&e.op)) j["limit"] = n->limit;
    require(!std::holds_alternative<op::Custom>(e.op), ErrorCode::unsupported, where_,
            "expected what JSON can hold but {} ({}) is a function", what, e.describe());
    if (e.strength != 1) j["strength"] = e.strength;
    if (e.unit != Unit::raw) j["unit"] = to_string(e.unit);
    if (e.scope != Scope{}) j["scope"] = scope(e.scope);
    if (e.when) j["when"] = condition(*e.when);
    if (!e.name.empty()) j["name"] = e.name;
    return j;
  }

  void feature(json& j, const op::Feature& f) {
    j["sae"] = sae(f.sae);
    j["feature"] = f.index;
    const bool bounded = f.action == FeatureAction::clamp || f.action == FeatureAction::cap;
    if (!bounded && f.action != FeatureAction::ablate) j["value"] = f.value;
    if (bounded && std::isfinite(f.low)) j["low"] = f.low;
    if (bounded && std::isfinite(f.high)) j["high"] = f.high;
    if (f.max_activation != 0) j["max_activation"] = f.max_activation;
  }

  const SteeringSaveOptions& options_;
  bool collect_;
  std::string_view where_;
  json saes_ = json::object();
  std::vector<std::pair<std::string, at::Tensor>> vectors_;
};

class Reader {
 public:
  Reader(const SteeringLoadOptions& options, std::filesystem::path folder, std::string_view where)
      : options_(options), folder_(std::move(folder)), where_(where) {}

  Steering read(const json& source) {
    JsonObject object(source, "the steering", where_);
    const std::string format = object.text("format");
    require(format == kFormat, ErrorCode::format, where_, "expected format \"{}\" but got \"{}\"", kFormat, format);
    const std::int64_t version = object.integer("version");
    require(version == kVersion, ErrorCode::format, where_, "expected version {} but got {}; a newer steer wrote it",
            kVersion, version);
    if (object.has("saes")) {
      require(object.at("saes").is_object(), ErrorCode::format, where_, "expected \"saes\" to be an object but got {}",
              object.at("saes").type_name());
      references_ = object.at("saes");
    }
    if (object.has("vectors")) open_vectors(object.at("vectors"));
    Steering result;
    std::size_t number = 0;
    for (const json& entry : object.array("edits")) result.edit(edit(entry, fmt::format("edit {}", number++)));
    number = 0;
    if (object.has("watches"))
      for (const json& entry : object.array("watches")) watch(result, entry, fmt::format("watch {}", number++));
    object.done();
    return result;
  }

 private:
  void open_vectors(const json& source) {
    JsonObject object(source, "\"vectors\"", where_);
    vectors_ = open_tensors(folder_ / object.text("path"));
    object.done();
  }

  at::Tensor vector(const json& source, const std::string& what) {
    JsonObject object(source, "a vector of " + what, where_);
    if (object.has("tensor")) {
      const std::string hash = object.text("tensor");
      object.done();
      require(vectors_ != nullptr, ErrorCode::format, where_,
              "expected a key \"vectors\" that names the file of {}'s vector", what);
      const at::Tensor v = steering::detail::own_vector(vectors_->read(hash), "a vector of " + what, where_);
      require(vector_hash(v) == hash, ErrorCode::config, where_,
              "expected the vector of {} to have hash {} but the one in {} has {}; the file has changed", what, hash,
              vectors_->path().string(), vector_hash(v));
      return v;
    }
    std::vector<float> values;
    for (const json& value : object.array("values")) {
      require(value.is_number(), ErrorCode::format, where_, "expected numbers in the vector of {} but got {}", what,
              value.type_name());
      values.push_back(value.get<float>());
    }
    object.done();
    return at::tensor(values, at::kFloat);
  }

  const Sae& sae(const std::string& hash, const std::string& what) {
    if (const auto known = saes_.find(hash); known != saes_.end()) return known->second;
    for (const Sae& given : options_.saes)
      if (given.hash() == hash) return saes_.emplace(hash, given).first->second;
    require(references_.contains(hash), ErrorCode::format, where_, "expected \"saes\" to list {} of {}", hash, what);
    JsonObject reference(references_.at(hash), "SAE " + hash, where_);
    reference.ignore("model_name");
    require(reference.has("path"), ErrorCode::config, where_,
            "expected SAE {} of {} among SteeringLoadOptions::saes, or a path in the file, but got neither", hash,
            what);
    const std::filesystem::path path = folder_ / reference.text("path");
    reference.done();
    Sae loaded = Sae::load(path);
    require(loaded.hash() == hash, ErrorCode::config, where_, "expected the SAE at {} to have hash {} but it has {}",
            path.string(), hash, loaded.hash());
    return saes_.emplace(hash, std::move(loaded)).first->second;
  }

  Scope scope(const json& source, const std::string& what) {
    JsonObject object(source, "the scope of " + what, where_);
    Scope s;
    s.where = parse_enum<Where>(object.text("where"), where_);
    if (s.where == Where::onset) s.count = object.integer("count");
    if (s.where == Where::span) s.begin = object.integer("begin"), s.end = object.integer("end");
    if (s.where == Where::inside_tag || s.where == Where::outside_tag) s.tag = object.text("tag");
    s.include_bos = object.boolean_or("include_bos", false);
    object.done();
    return s;
  }

  Condition condition(const json& source, const std::string& what, int depth = 0) {
    require(depth < kDeepest, ErrorCode::format, where_, "expected conditions nested less than {} deep in {}", kDeepest,
            what);
    JsonObject object(source, "a condition of " + what, where_);
    Condition c;
    c.source = parse_enum<ConditionSource>(object.text("source"), where_);
    if (c.source == ConditionSource::feature || c.source == ConditionSource::probe)
      c.point = HookPoint::parse(object.text("point"));
    if (c.source == ConditionSource::feature) {
      c.sae = sae(object.text("sae"), what);
      c.feature = object.integer("feature");
    }
    if (c.source == ConditionSource::probe) {
      c.probe = vector(object.at("vector"), what);
      c.bias = object.number("bias");
    }
    if (c.source == ConditionSource::all_of || c.source == ConditionSource::any_of)
      for (const json& part : object.array("parts")) c.parts.push_back(condition(part, what, depth + 1));
    c.above = object.number_or("above", c.above);
    c.at_most = object.number_or("at_most", c.at_most);
    c.release = object.number_or("release", 0);
    c.sticky = object.boolean_or("sticky", false);
    object.done();
    return c;
  }

  void watch(Steering& result, const json& source, const std::string& what) {
    JsonObject object(source, what, where_);
    const bool abort = object.boolean("abort");
    require(abort, ErrorCode::unsupported, where_, "expected {} to abort: JSON cannot name another handler", what);
    result.abort_when(condition(object.at("when"), what), object.text("reason"));
    object.done();
  }

  Edit edit(const json& source, const std::string& what) {
    JsonObject object(source, what, where_);
    Edit e;
    e.point = HookPoint::parse(object.text("point"));
    e.op = op_of(object, object.text("kind"), what);
    e.strength = object.number_or("strength", 1);
    e.unit = object.enum_or("unit", Unit::raw);
    if (object.has("scope")) e.scope = scope(object.at("scope"), what);
    if (object.has("when")) e.when = condition(object.at("when"), what);
    e.name = object.text_or("name", "");
    object.done();
    return e;
  }

  Op op_of(JsonObject& object, const std::string& kind, const std::string& what) {
    const auto vec = [&](std::string_view key) { return vector(object.at(key), what); };
    if (kind == "add") return op::Add{vec("vector")};
    if (kind == "project_out") return op::ScaleAlong{vec("vector"), 0};
    if (kind == "scale_along") return op::ScaleAlong{vec("vector"), object.number("factor")};
    if (kind == "project_to")
      return op::ProjectTo{vec("vector"), object.number("target"), object.enum_or("side", Side::below)};
    if (kind == "rotate") return op::Rotate{vec("a"), vec("b"), object.number("radians")};
    if (kind == "gated_add")
      return op::GatedAdd{vec("gate"), object.number("gate_bias"), vec("vector"), object.number("gain")};
    if (kind == "splice") return op::Splice{sae(object.text("sae"), what), object.boolean_or("with_error", false)};
    if (kind == "cap_norm") return op::NormCap{object.number("limit")};
    if (kind == "keep_norm") return op::KeepNorm{};
    const auto action = find_enum<FeatureAction>(kind);
    require(action.has_value(), ErrorCode::format, where_, "expected a kind of edit in {} but got \"{}\"", what, kind);
    op::Feature f{.sae = sae(object.text("sae"), what), .index = object.integer("feature"), .action = *action};
    const bool bounded = *action == FeatureAction::clamp || *action == FeatureAction::cap;
    if (bounded) {
      f.low = object.number_or("low", f.low);
      f.high = object.number_or("high", f.high);
    } else if (*action != FeatureAction::ablate) {
      f.value = object.number("value");
    }
    f.max_activation = object.number_or("max_activation", 0);
    return f;
  }

  const SteeringLoadOptions& options_;
  std::filesystem::path folder_;
  std::string_view where_;
  json references_ = json::object();
  std::shared_ptr<const TensorReader> vectors_;
  std::map<std::string, Sae> saes_;
};

}  // namespace

json Steering::to_json(const SteeringSaveOptions& options) const {
  return Writer(options, /*collect=*/false, "Steering::to_json").write(*this);
}

Steering Steering::from_json(const json& source, const SteeringLoadOptions& options,
                             const std::filesystem::path& folder) {
  return Reader(options, folder, "Steering::from_json").read(source);
}

void Steering::save(const std::filesystem::path& file, const SteeringSaveOptions& options) const {
  constexpr std::string_view where = "Steering::save";
  Writer writer(options, /*collect=*/true, where);
  json result = writer.write(*this);
  if (!writer.collected().empty()) {
    std::filesystem::path vectors = file;
    vectors.replace_extension(".safetensors");
    save_safetensors(vectors, writer.collected());
    result["vectors"] = {{"path", vectors.filename().generic_string()}};
  }
  std::ofstream out(file, std::ios::trunc);
  out << result.dump(1) << '\n';
  out.flush();
  require(out.good(), ErrorCode::io, where, "expected to write {} but the file system refused", file.string());
}

Steering Steering::load(const std::filesystem::path& file, const SteeringLoadOptions& options) {
  constexpr std::string_view where = "Steering::load";
  std::ifstream in(file);
  require(in.good(), ErrorCode::io, where, "expected a readable file but got {}", file.string());
  json source;
  try {
    source = json::parse(in);
  } catch (const json::exception& error) {
    fail(ErrorCode::format, where, "expected JSON but got an error in {}: {}", file.string(), error.what());
  }
  return Reader(options, file.parent_path(), where).read(source);
}

}  // namespace steer
