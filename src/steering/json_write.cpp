// Steerings written as JSON. Schema: docs/steering-schema.md.

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/steering/steering.hpp>

#include "core/format_text.hpp"
#include "io/text_file.hpp"
#include "steering/edits/operation.hpp"
#include "steering/json_format.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;

/// Writes one steering: inline, or with its vectors collected for a file beside it.
class Writer {
 public:
  Writer(const SteeringSaveOptions& options, bool collect, std::string_view where)
      : options_(options), collect_(collect), where_(where) {}

  json write(const Steering& steering) {
    json edits = json::array(), watches = json::array();
    for (std::size_t i = 0; i < steering.edits().size(); ++i)
      edits.push_back(edit(steering.edits()[i], format_text("edit {}", i)));
    for (std::size_t i = 0; i < steering.watches().size(); ++i) {
      const Watch& w = steering.watches()[i];
      require(!w.handler, ErrorCode::unsupported, where_,
              "expected what JSON can hold but watch {} ({}) calls a function", i, w.reason);
      watches.push_back({{"when", condition(w.when)}, {"reason", w.reason}, {"abort", w.abort}});
    }
    json result{{"format", kJsonFormat}, {"version", kJsonVersion}, {"edits", edits}};
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
    else if (collect_ && !sae.path().empty())
      reference["path"] = sae.path().generic_string();
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
    if (!s.tokens.empty()) j["tokens"] = s.tokens;
    for (const Scope& scope : s.except) j["except"].push_back(Writer::scope(scope));
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
    for (const Field& field : e.op->fields())
      j[field.name] = std::visit([&](const auto& value) { return written(value, e, what); }, field.value);
    if (e.strength != 1) j["strength"] = e.strength;
    if (e.unit != StrengthUnit::raw) j["unit"] = to_string(e.unit);
    if (e.scope != Scope{}) j["scope"] = scope(e.scope);
    if (e.when) j["when"] = condition(*e.when);
    if (!e.name.empty()) j["name"] = e.name;
    return j;
  }

  template <class T>
  json written(const T& value, const Edit& e, const std::string& what) {
    if constexpr (std::is_same_v<T, at::Tensor>)
      return vector(value);
    else if constexpr (std::is_same_v<T, Sae>)
      return sae(value);
    else if constexpr (std::is_same_v<T, std::shared_ptr<const CustomFunction>>)
      fail(ErrorCode::unsupported, where_, "expected what JSON can hold but {} ({}) is a function", what, e.describe());
    else
      return value;
  }

  const SteeringSaveOptions& options_;
  bool collect_;
  std::string_view where_;
  json saes_ = json::object();
  std::vector<std::pair<std::string, at::Tensor>> vectors_;
};

}  // namespace

json Steering::to_json(const SteeringSaveOptions& options) const {
  return Writer(options, /*collect=*/false, "Steering::to_json").write(*this);
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
  io::detail::write_text_file(file, result.dump(1) + "\n", where);
}

}  // namespace steer
