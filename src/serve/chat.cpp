// /v1/chat/completions: a conversation in, the assistant's next message out.

#include <chrono>
#include <nlohmann/json.hpp>

#include "core/format_text.hpp"
#include "serve/chat_messages.hpp"
#include "serve/generation_call.hpp"
#include "serve/sse.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct Call {
  GenerationCall generation;
  std::vector<std::int64_t> prompt;
  std::string id = random_id("chatcmpl"), model;
  std::int64_t created = unix_time();
  std::optional<ResidualCapture> residuals{};
};

Call read_call(const HttpRequest& request, Service& service) {
  const json body = parse_body(request.body);
  Fields fields(body);
  Call call{.generation = read_generation(fields, service), .model = service.name()};
  call.prompt = render_messages(fields, service);
  if (fields.has("max_completion_tokens"))
    call.generation.max_tokens = fields.integer("max_completion_tokens", 1, INT64_MAX);
  if (fields.has("max_tokens")) call.generation.max_tokens = fields.integer("max_tokens", 1, INT64_MAX);
  const bool log_probabilities = fields.boolean("logprobs", false);
  if (log_probabilities) call.generation.top = 0;
  if (fields.has("top_logprobs")) {
    call.generation.top = fields.integer("top_logprobs", 0, 20);
    if (!log_probabilities) fields.fail("top_logprobs", "\"top_logprobs\" needs \"logprobs\": true");
  }
  if (fields.has("response_format")) {
    Fields format = fields.object("response_format");
    if (const auto type = format.text("type"); type != "text")
      fields.fail("response_format",
                  format_text("\"response_format\" of type \"{}\" is not supported: answers are plain text", type));
  }
  if (call.generation.prompt_top >= 0) fields.fail("prompt_logprobs", "\"prompt_logprobs\" is for /v1/completions");
  fields.refuse({"tools", "functions", "function_call"}, "the server calls no tools");
  if (fields.has("tool_choice") && fields.at("tool_choice") != "none" && fields.at("tool_choice") != "auto")
    fields.refuse({"tool_choice"}, "the server calls no tools");
  if (fields.has("modalities") && fields.at("modalities") != json::array({"text"}))
    fields.refuse({"modalities"}, "answers are text");
  fields.refuse({"audio", "prediction", "web_search_options"}, "answers are text that the model itself writes");
  fields.ignore({"parallel_tool_calls", "reasoning_effort", "verbosity"});
  fields.done();
  if (call.generation.choices > 1 && !call.generation.steering.residual_layers.empty())
    fields.fail("vllm_xargs", "\"output_residual_stream\" is for requests of one row");
  call.residuals = residual_capture(call.generation, service);
  return call;
}

json bytes_json(const std::string& bytes) {
  json list = json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

json token_json(const Service& service, std::int64_t id, double log_probability) {
  return {
      {"token", service.token_text(id)}, {"logprob", log_probability}, {"bytes", bytes_json(service.token_bytes(id))}};
}

json token_json(const Service& service, std::int64_t id, double log_probability, const TopTokens& top) {
  json token = token_json(service, id, log_probability);
  token["top_logprobs"] = json::array();
  for (const auto& [other, value] : top) token["top_logprobs"].push_back(token_json(service, other, value));
  return token;
}

json choice_json(const Service& service, const Call& call, std::int64_t index, const GenerateResult& result) {
  json choice{{"index", index},
              {"message", {{"role", "assistant"}, {"content", result.text}, {"refusal", nullptr}}},
              {"logprobs", nullptr},
              {"finish_reason", finish_word(result.finish)}};
  if (call.generation.top >= 0) {
    json content = json::array();
    for (std::size_t i = 0; i < result.ids.size(); ++i)
      content.push_back(token_json(service, result.ids[i], result.log_probabilities[i],
                                   i < result.top.size() ? result.top[i] : TopTokens{}));
    choice["logprobs"] = {{"content", content}, {"refusal", nullptr}};
  }
  if (const auto reason = stop_reason(result); !reason.is_null()) choice["stop_reason"] = reason;
  return choice;
}

json envelope(const Call& call, const char* object) {
  return {{"id", call.id},
          {"object", object},
          {"created", call.created},
          {"model", call.model},
          {"system_fingerprint", "steer"}};
}

/// The rows of one call while they are answered.
struct Answer {
  Service& service;
  Call call;
  Generation generation;
  Usage usage{};
  std::shared_ptr<std::string> note = std::make_shared<std::string>();
  Clock::time_point start = Clock::now();

  Answer(Service& s, Call c) : service(s), call(std::move(c)), generation(s, call.generation.stream) {
    usage.prompt = std::ssize(call.prompt);
    EngineRequest request = engine_request(call.generation, call.prompt, service);
    if (call.residuals) request.observers = call.residuals->observers();
    generation.submit(std::move(request));
  }

  json whole(const std::function<bool()>& gone) {
    std::vector<json> choices(static_cast<std::size_t>(generation.choices()));
    while (auto event = generation.next(gone)) {
      usage.add(*event->result);
      choices[static_cast<std::size_t>(event->choice)] = choice_json(service, call, event->choice, *event->result);
    }
    finish();
    json body = envelope(call, "chat.completion");
    body["choices"] = choices;
    body["usage"] = usage.to_json(call.generation.steering);
    if (call.residuals) body["activations"] = call.residuals->to_json();
    return body;
  }

  json chunk(json choices) const {
    json event = envelope(call, "chat.completion.chunk");
    event["choices"] = std::move(choices);
    if (call.generation.include_usage) event["usage"] = nullptr;
    return event;
  }

  void write(EventStream& events, HttpStream& out) {
    for (std::int64_t i = 0; i < generation.choices(); ++i)
      events.send(chunk(json::array({{{"index", i},
                                      {"delta", {{"role", "assistant"}, {"content", ""}}},
                                      {"logprobs", nullptr},
                                      {"finish_reason", nullptr}}})));
    bool first = true;
    while (auto event = generation.next([&] { return out.gone(); })) {
      if (first) service.metrics.count_first_token(std::chrono::duration<double>(Clock::now() - start).count());
      first = false;
      json choice{
          {"index", event->choice}, {"delta", json::object()}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
      if (!event->text.empty() || event->id >= 0) choice["delta"] = {{"content", event->text}};
      if (call.generation.top >= 0 && event->id >= 0)
        choice["logprobs"] = {
            {"content", json::array({token_json(service, event->id, event->log_probability, event->top)})},
            {"refusal", nullptr}};
      if (event->result) {
        usage.add(*event->result);
        choice["finish_reason"] = finish_word(event->result->finish);
        if (const auto reason = stop_reason(*event->result); !reason.is_null()) choice["stop_reason"] = reason;
      }
      events.send(chunk(json::array({std::move(choice)})));
    }
    finish();
    if (call.generation.include_usage) {
      json last = chunk(json::array());
      last["usage"] = usage.to_json(call.generation.steering);
      events.send(last);
    }
    events.done();
  }

  void finish() {
    usage.check_fired(call.generation.steering);
    service.metrics.count_prompt_tokens(usage.prompt);
    service.metrics.count_completion_tokens(usage.completion);
    *note = usage.note(call.generation.steering);
  }
};

HttpReply answer(Service& service, const HttpRequest& request) {
  const auto state = std::make_shared<Answer>(service, read_call(request, service));
  HttpReply reply = state->call.generation.stream
                        ? event_reply([state](EventStream& events, HttpStream& out) { state->write(events, out); })
                        : json_reply(state->whole(request.gone));
  reply.note = state->note;
  return reply;
}

}  // namespace

std::vector<Route> chat_routes(Service& service) {
  return {
      {"POST", "/v1/chat/completions", [&service](const HttpRequest& request) { return answer(service, request); }}};
}

}  // namespace steer::serve::detail
