// Steerings read from JSON. Schema: docs/steering-schema.md.

#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/steering/steering.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "steering/checks.hpp"
#include "steering/edits/operation.hpp"
#include "steering/json_format.hpp"
#include "steering/json_object.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;

constexpr int kDeepest = 32;  ///< conditions within conditions

class Reader {
 public:
  Reader(const SteeringLoadOptions& options, std::filesystem::path folder, std::string_view where)
      : options_(options), folder_(std::move(folder)), where_(where) {}

  Steering read(const json& source) {
    JsonObject object(source, "the steering", where_);
    const std::string format = object.text("format");
    require(format == kJsonFormat, ErrorCode::format, where_, "expected format \"{}\" but got \"{}\"", kJsonFormat,
            format);
    const std::int64_t version = object.integer("version");
    require(version == kJsonVersion, ErrorCode::format, where_,
            "expected version {} but got {}; a newer steer wrote it", kJsonVersion, version);
    if (object.has("saes")) {
      require(object.at("saes").is_object(), ErrorCode::format, where_, "expected \"saes\" to be an object but got {}",
              object.at("saes").type_name());
      references_ = object.at("saes");
    }
    if (object.has("vectors")) open_vectors(object.at("vectors"));
    Steering result;
    std::size_t number = 0;
    for (const json& entry : object.array("edits")) result.edit(edit(entry, format_text("edit {}", number++)));
    number = 0;
    if (object.has("watches"))
      for (const json& entry : object.array("watches")) watch(result, entry, format_text("watch {}", number++));
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

Steering Steering::from_json(const json& source, const SteeringLoadOptions& options,
                             const std::filesystem::path& folder) {
  return Reader(options, folder, "Steering::from_json").read(source);
}

Steering Steering::load(const std::filesystem::path& file, const SteeringLoadOptions& options) {
  constexpr std::string_view where = "Steering::load";
  return Reader(options, file.parent_path(), where).read(io::detail::read_json(file, where));
}

}  // namespace steer
