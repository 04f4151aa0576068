// Neuronpedia's inference API: /v1/steer/completion and /v1/steer/completion-chat answer with and without steering,
// side by side. Its JSON has two spellings, of the published client (steer_method) and of the website (steerMethod):
// answers keep the request's.

#include <ATen/ops/tensor.h>

#include <cctype>
#include <chrono>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "serve/chat_messages.hpp"
#include "serve/generation_call.hpp"
#include "serve/sse.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

/// {"steerMethod"} as {"steer_method"}, also within lists. @return whether anything was spelled so.
bool to_snake(json& node) {
  bool changed = false;
  if (node.is_array())
    for (json& entry : node) changed |= entry.is_object() && to_snake(entry);
  if (!node.is_object()) return changed;
  json renamed = json::object();
  for (auto& [key, value] : node.items()) {
    std::string name;
    for (const char c : key) {
      if (c >= 'A' && c <= 'Z') name += '_';
      name += ascii_lower(c);
    }
    changed |= name != key;
    if (value.is_array()) changed |= to_snake(value);
    if (renamed.contains(name)) throw ApiError(400, format_text("\"{}\" is given twice", name), name);
    renamed[name] = std::move(value);
  }
  node = std::move(renamed);
  return changed;
}

/// One request: the same row once for each of its types.
struct SteerCall {
  GenerationCall generation{};
  std::vector<std::string> types{};  ///< "STEERED", "DEFAULT"
  std::vector<std::int64_t> ids{};
  json messages{};  ///< of a chat; null for a text
  bool camel = false;
};

at::Tensor read_direction(Fields& fields, std::string_view key) {
  std::vector<float> values;
  for (const json& value : fields.array(key)) {
    if (!value.is_number()) fields.fail(key, format_text("expected \"{}\" to be a list of numbers", fields.name(key)));
    values.push_back(value.get<float>());
  }
  return at::tensor(values, at::kFloat);
}

void add_edit(Steering& steering, const std::string& method, bool normalize, at::Tensor vector, const HookPoint& point,
              double strength, const Scope& scope) {
  if (normalize) vector = vector / vector.norm();
  if (method == "SIMPLE_ADDITIVE")
    steering.add(vector, point, strength, {.scope = scope});
  else if (method == "ORTHOGONAL_DECOMP")
    steering.scale_along(vector, point, strength, {.scope = scope});
  else
    steering.project_to(vector, point, strength, TargetSide::above, {.scope = scope});
}

Steering read_edits(Fields& fields, const Service& service, const Scope& scope) {
  const std::string method = fields.text("steer_method");
  if (method != "SIMPLE_ADDITIVE" && method != "ORTHOGONAL_DECOMP" && method != "PROJECTION_CAP")
    fields.fail("steer_method", "expected \"steer_method\" of SIMPLE_ADDITIVE, ORTHOGONAL_DECOMP or PROJECTION_CAP");
  const bool normalize = fields.boolean("normalize_steering", false);
  const double factor = fields.number("strength_multiplier", 1, -1e6, 1e6);
  Steering steering;
  const auto each = [&](const char* key, const auto& read) {
    if (!fields.has(key)) return;
    const json& list = fields.array(key);
    for (std::size_t i = 0; i < list.size(); ++i) {
      Fields entry(list[i], format_text("{}[{}]", fields.name(key), i));
      const double strength = factor * entry.number("strength", -1e6, 1e6);
      try {
        read(entry, strength);
      } catch (const Error& error) {
        throw ApiError(400, error.what(), format_text("{}[{}]", fields.name(key), i));
      }
      entry.done();
    }
  };
  each("features", [&](Fields& entry, double strength) {
    entry.ignore({"model", "steering_vector"});  // the row is this server's own
    const ServedSae& served = service.sae(entry.text("source"), entry.name("source"));
    const std::int64_t index = entry.integer("index", 0, served.sae.d_sae() - 1);
    const at::Tensor row = served.sae.decoder_rows(std::span(&index, 1)).to(at::kCPU).to(at::kFloat)[0];
    add_edit(steering, method, normalize, row, sae_point(service.model, served.sae), strength, scope);
  });
  each("vectors", [&](Fields& entry, double strength) {
    const at::Tensor vector = read_direction(entry, "steering_vector");
    add_edit(steering, method, normalize, vector, HookPoint::parse(entry.text("hook")), strength, scope);
  });
  return steering;
}

std::vector<std::string> read_types(Fields& fields) {
  std::vector<std::string> types;
  for (const json& type : fields.array("types")) {
    if (type != "STEERED" && type != "DEFAULT") fields.fail("types", "expected \"types\" of STEERED and DEFAULT");
    if (std::ranges::find(types, type.get<std::string>()) == types.end()) types.push_back(type.get<std::string>());
  }
  if (types.empty()) fields.fail("types", "expected at least one of STEERED and DEFAULT in \"types\"");
  return types;
}

/// Every token; without the special ones where a chat wants them left alone.
Scope scope_of(Fields& fields, const Service& service, bool chat) {
  Scope scope{.include_bos = true};
  if (!chat || fields.boolean("steer_special_tokens", true)) return scope;
  Scope special{.include_bos = true};
  for (std::int64_t id = 0; id < service.model.tokenizer().vocab_size(); ++id)
    if (service.model.tokenizer().is_special(id)) special.tokens.push_back(id);
  if (!special.tokens.empty()) scope.except.push_back(std::move(special));
  return scope;
}

SteerCall read_call(const HttpRequest& request, const Service& service, bool chat) {
  json body = parse_body(request.body);
  SteerCall call{.camel = to_snake(body)};
  Fields fields(body);
  service.check_model(fields);
  call.types = read_types(fields);
  const bool steered = std::ranges::find(call.types, "STEERED") != call.types.end();
  if (fields.has("features") && fields.has("vectors"))
    fields.fail("features", "exactly one of features or vectors must be provided");
  if (steered && !fields.has("features") && !fields.has("vectors"))
    fields.fail("features", "exactly one of features or vectors must be provided");
  GenerationCall& generation = call.generation;
  generation.steering.steering = read_edits(fields, service, scope_of(fields, service, chat));
  generation.max_tokens = fields.integer("n_completion_tokens", 1, INT64_MAX);
  generation.sampling.temperature = fields.number("temperature", 0, 100);
  generation.sampling.frequency_penalty = fields.number("freq_penalty", 0, -100, 100);
  generation.seed = static_cast<std::uint64_t>(static_cast<std::int64_t>(fields.number("seed", -9e15, 9e15)));
  generation.top = fields.integer("n_logprobs", 0, 0, 10);
  if (generation.top == 0) generation.top = -1;
  generation.stream = fields.boolean("stream", false);
  if (fields.boolean("fail_if_busy", false) && service.loop.load().waiting > 0)
    throw ApiError(429, "rows wait for their turn, and the request does not want to");
  if (chat) {
    call.messages = fields.at("prompt");
    for (json& message : call.messages)  // Gemma's word
      if (message.is_object() && message.value("role", json()) == "model") message["role"] = "assistant";
    call.ids = service.model.chat().render(read_messages(call.messages, "prompt"), {}).ids;
    if (fields.boolean("is_assistant_axis", false)) fields.refuse({"is_assistant_axis"}, "this server has no axes");
    fields.refuse({"reads", "custom_axes"}, "ask /v1/activations for readings");
  } else {
    call.ids = service.encode(fields.text("prompt"));
  }
  fields.done();
  return call;
}

/// Both rows while they are answered.
class SideBySide {
 public:
  SideBySide(Service& service, SteerCall call)
      : service_(service),
        call_(std::move(call)),
        prompt_(service.model.tokenizer().decode(call_.ids)),
        generation_(service, call_.generation.stream) {
    for (const auto& type : call_.types) {
      GenerationCall row = call_.generation;
      if (type == "DEFAULT") row.steering.steering = {};
      usage_.prompt += std::ssize(call_.ids);
      generation_.submit(engine_request(row, call_.ids, service));
      outputs_.push_back({{"type", type}, {"output", ""}});
      if (row.top > 0) outputs_.back()["logprobs"] = json::array();
    }
  }

  json whole(const std::function<bool()>& gone) {
    while (auto event = generation_.next(gone)) {
      const GenerateResult& result = *event->result;
      json& output = outputs_[static_cast<std::size_t>(event->choice)];
      output["output"] = result.text;
      for (std::size_t i = 0; output.contains("logprobs") && i < result.ids.size(); ++i)
        output["logprobs"].push_back(token(result.ids[i], result.log_probabilities[i], result.top[i]));
      usage_.add(result);
    }
    finish();
    return frame();
  }

  /// Each event holds all that is there.
  void write(EventStream& events, HttpStream& out) {
    while (auto event = generation_.next([&] { return out.gone(); })) {
      json& output = outputs_[static_cast<std::size_t>(event->choice)];
      output["output"] = output["output"].get_ref<const std::string&>() + event->text;
      if (output.contains("logprobs") && event->id >= 0)
        output["logprobs"].push_back(token(event->id, event->log_probability, event->top));
      if (event->result) usage_.add(*event->result);
      events.send(frame());
    }
    finish();
  }

  bool stream() const { return call_.generation.stream; }
  std::shared_ptr<const std::string> note() const { return note_; }

 private:
  json token(std::int64_t id, double log_probability, const TopTokens& top) const {
    json list = json::array();
    for (const auto& [other, value] : top) list.push_back({{"token", service_.token_text(other)}, {"logprob", value}});
    return {{"token", service_.token_text(id)},
            {"logprob", log_probability},
            {call_.camel ? "topLogprobs" : "top_logprobs", std::move(list)}};
  }

  json frame() const {
    if (call_.messages.is_null()) return {{"outputs", outputs_}};
    const char* chat = call_.camel ? "chatTemplate" : "chat_template";
    json outputs = json::array();
    for (const json& output : outputs_) {
      const auto& text = output["output"].get_ref<const std::string&>();
      json said = call_.messages;
      said.push_back({{"role", "assistant"}, {"content", text}});
      outputs.push_back({{"type", output["type"]}, {"raw", prompt_ + text}, {chat, std::move(said)}});
      if (output.contains("logprobs")) outputs.back()["logprobs"] = output["logprobs"];
    }
    return {{"outputs", std::move(outputs)}, {"input", {{"raw", prompt_}, {chat, call_.messages}}}};
  }

  void finish() {
    service_.metrics.count_prompt_tokens(usage_.prompt);
    service_.metrics.count_completion_tokens(usage_.completion);
    *note_ = usage_.note(call_.generation.steering);
  }

  Service& service_;
  SteerCall call_;
  std::string prompt_;
  Generation generation_;
  Usage usage_{};
  std::vector<json> outputs_;
  std::shared_ptr<std::string> note_ = std::make_shared<std::string>();
};

HttpReply steer_completion(Service& service, const HttpRequest& request, bool chat) {
  const auto answer = std::make_shared<SideBySide>(service, read_call(request, service, chat));
  HttpReply reply = answer->stream()
                        ? event_reply([answer](EventStream& events, HttpStream& out) { answer->write(events, out); })
                        : json_reply(answer->whole(request.gone));
  reply.note = answer->note();
  return reply;
}

}  // namespace

std::vector<Route> neuronpedia_routes(Service& service) {
  const auto route = [&service](const char* path, bool chat) {
    return Route{"POST", path,
                 [&service, chat](const HttpRequest& request) { return steer_completion(service, request, chat); }};
  };
  return {route("/v1/steer/completion", false), route("/v1/steer/completion-chat", true)};
}

}  // namespace steer::serve::detail
