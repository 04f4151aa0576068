#include "serve/goodfire.hpp"

#include <charconv>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/steering/interop.hpp>

#include "core/format_text.hpp"
#include "serve/chat_messages.hpp"
#include "serve/generation_call.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

/// FNV-1a.
std::uint64_t digest(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

/// Says in each feature how much a strength of 1 is; the client always writes 1.
void set_units(json& node, const ServedSae& served) {
  if (node.is_object() && node.contains("index_in_sae") && node["index_in_sae"].is_number_integer())
    node["max_activation_strength"] = goodfire_unit(served, node["index_in_sae"].get<std::int64_t>());
  if (node.is_structured())
    for (auto& child : node) set_units(child, served);
}

/// The system messages at the front as one.
std::vector<Message> joined(std::vector<Message> messages) {
  while (messages.size() > 1 && messages[0].role == Role::system && messages[1].role == Role::system) {
    messages[1].content = messages[0].content + "\n\n" + messages[1].content;
    messages.erase(messages.begin());
  }
  return messages;
}

}  // namespace

std::string feature_uuid(const ServedSae& served, std::int64_t feature) {
  const std::uint64_t sae = digest(served.sae.hash());
  return format_text("{:08x}-{:04x}-8{:03x}-8{:03x}-{:012x}", sae >> 32, sae >> 16 & 0xffff, sae >> 4 & 0xfff,
                     sae & 0xfff, feature);
}

std::pair<const ServedSae*, std::int64_t> feature_of_uuid(const Service& service, std::string_view uuid) {
  std::string digits;
  for (const char c : uuid)
    if (c != '-') digits += c;
  std::int64_t index = -1;
  if (digits.size() == 32) std::from_chars(digits.data() + 20, digits.data() + 32, index, 16);
  for (const auto& served : service.options.saes) {
    if (index < 0 || index >= served.sae.d_sae()) continue;
    std::string known;
    for (const char c : feature_uuid(served, index))
      if (c != '-') known += c;
    if (std::ranges::equal(known, digits, [](char a, char b) { return a == (b >= 'A' && b <= 'F' ? b + 32 : b); }))
      return {&served, index};
  }
  throw ApiError(404, format_text("no feature of this server has the id \"{}\"", uuid.substr(0, 64)), "feature_id");
}

json goodfire_feature(const ServedSae& served, std::int64_t feature, const char* key) {
  std::string label(served.labels ? served.labels->label(feature) : std::string_view());
  if (label.empty()) label = format_text("feature {}", feature);
  return {{key, feature_uuid(served, feature)}, {"label", std::move(label)}, {"index_in_sae", feature}};
}

const FeatureLabels& goodfire_labels(const ServedSae& served) {
  if (!served.labels) throw ApiError(400, "this server's SAE has no labels; start it with them (--labels PATH)");
  return *served.labels;
}

double goodfire_unit(const ServedSae& served, std::int64_t feature) {
  const auto most = served.labels ? served.labels->max_activation(feature) : std::nullopt;
  return most && *most > 0 ? *most : 1;
}

Steering read_controller(Fields& fields, const Service& service) {
  const json* source = fields.find("controller");
  if (!source) return {};
  const Fields checked(*source, fields.name("controller"));
  const json* edits = source->contains("interventions") ? &source->at("interventions") : nullptr;
  const json* scopes = source->contains("scopes") ? &source->at("scopes") : nullptr;
  if (edits && edits->empty() && scopes && scopes->empty()) return {};
  const ServedSae& served = service.sae({}, fields.name("controller"));
  json controller = *source;
  set_units(controller, served);
  try {
    return from_hosted_variant(controller, served.sae, {.unit = StrengthUnit::max_activation});
  } catch (const Error& error) {
    fields.fail("controller", error.what());
  }
}

std::vector<std::int64_t> goodfire_prompt(Fields& fields, const Service& service, bool generation_prompt) {
  auto messages = read_messages(fields.at("messages"), fields.name("messages"));
  const ChatOptions options{.generation_prompt = generation_prompt};
  const bool two = messages.size() > 1 && messages[0].role == Role::system && messages[1].role == Role::system;
  try {
    return service.model.chat().render(messages, options).ids;
  } catch (const Error&) {
    if (!two) throw;
  }
  return service.model.chat().render(joined(std::move(messages)), options).ids;
}

std::vector<std::vector<std::pair<std::int64_t, float>>> observed_features(Service& service, const ServedSae& served,
                                                                           std::vector<std::int64_t> ids,
                                                                           const Steering& steering,
                                                                           ObserveFeaturesOptions options,
                                                                           const std::function<bool()>& gone) {
  using Rows = std::vector<std::vector<std::pair<std::int64_t, float>>>;
  const auto rows = std::make_shared<Rows>(ids.size());
  GenerationCall call;
  call.max_tokens = 0;
  call.steering.steering = steering;
  EngineRequest request = engine_request(call, std::move(ids), service);
  const auto keep = [rows](const FeatureObservation& seen) {
    for (std::size_t t = 0; t < seen.active.size(); ++t)
      if (const auto at = static_cast<std::size_t>(seen.position) + t; at > 0 && at < rows->size())
        (*rows)[at] = seen.active[t];
  };
  request.observers.push_back(observe_features(served.sae, keep, options));
  Generation generation(service, false);
  generation.submit(std::move(request));
  while (generation.next(gone)) {
  }
  return *rows;
}

}  // namespace steer::serve::detail
