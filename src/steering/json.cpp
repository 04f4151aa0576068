// Steerings as JSON. Schema: docs/steering-schema.md.

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/steering/steering.hpp>

#include "io/strict_json.hpp"
#include "io/text_file.hpp"
#include "steering/checks.hpp"
#include "steering/edits/operation.hpp"
#include "steering/json_object.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;

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
      const at::Tensor v = own_vector(vectors_->read(hash), "a vector of " + what, where_);
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

  Scope scope(const json& source, const std::string& what, int depth = 0) {
    require(depth < kDeepest, ErrorCode::format, where_, "expected scopes nested less than {} deep in {}", kDeepest,
            what);
    JsonObject object(source, "the scope of " + what, where_);
    Scope s;
    s.where = parse_enum<Where>(object.text("where"), where_);
    if (s.where == Where::onset) s.count = object.integer("count");
    if (s.where == Where::span) s.begin = object.integer("begin"), s.end = object.integer("end");
    if (s.where == Where::inside_tag || s.where == Where::outside_tag) s.tag = object.text("tag");
    s.include_bos = object.boolean_or("include_bos", false);
    if (object.has("tokens"))
      for (const json& id : object.array("tokens")) {
        require(id.is_number_integer(), ErrorCode::format, where_, "expected token ids in the scope of {} but got {}",
                what, id.dump());
        s.tokens.push_back(id.get<std::int64_t>());
      }
    if (object.has("except"))
      for (const json& part : object.array("except")) s.except.push_back(scope(part, what, depth + 1));
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
    const auto op = kind_named(object.text("kind"), what, where_).make();
    Fields fields(*this, object, what);
    op->read(fields);
    op->own(where_);
    e.op = op;
    e.strength = object.number_or("strength", 1);
    e.unit = object.enum_or("unit", StrengthUnit::raw);
    if (object.has("scope")) e.scope = scope(object.at("scope"), what);
    if (object.has("when")) e.when = condition(object.at("when"), what);
    e.name = object.text_or("name", "");
    object.done();
    return e;
  }

  /// The keys of one edit that its kind asks for.
  class Fields final : public FieldReader {
   public:
    Fields(Reader& reader, JsonObject& object, const std::string& what)
        : reader_(reader), object_(object), what_(what) {}
    bool has(std::string_view name) override { return object_.has(name); }
    void get(std::string_view name, at::Tensor& value) override { value = reader_.vector(object_.at(name), what_); }
    void get(std::string_view name, double& value) override { value = object_.number(name); }
    void get(std::string_view name, std::int64_t& value) override { value = object_.integer(name); }
    void get(std::string_view name, bool& value) override { value = object_.boolean(name); }
    void get(std::string_view name, std::string& value) override { value = object_.text(name); }
    void get(std::string_view name, std::optional<Sae>& value) override {
      value = reader_.sae(object_.text(name), what_);
    }
    void get(std::string_view, std::shared_ptr<const CustomFunction>&) override {
      fail(ErrorCode::unsupported, reader_.where_, "expected a kind of edit that JSON can hold but {} is a function",
           what_);
    }

   private:
    Reader& reader_;
    JsonObject& object_;
    const std::string& what_;
  };

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
  io::detail::write_text_file(file, result.dump(1) + "\n", where);
}

Steering Steering::load(const std::filesystem::path& file, const SteeringLoadOptions& options) {
  constexpr std::string_view where = "Steering::load";
  return Reader(options, file.parent_path(), where).read(io::detail::read_json(file, where));
}

}  // namespace steer
