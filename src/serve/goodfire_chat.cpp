// Goodfire's chat: completions whole and streamed, tokens, logits of the next token.

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/format_text.hpp"
#include "serve/generation_call.hpp"
#include "serve/goodfire.hpp"
#include "serve/sse.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

/// The scopes' events that ended a row; the client looks for the ones it knows.
json event_names(const GenerateResult& result) {
  return result.finish == FinishReason::aborted && !result.abort_reason.empty() ? json::array({result.abort_reason})
                                                                                : json::array();
}

/// One row, and its answer in the client's shapes.
struct GoodfireAnswer {
  Service& service;
  GenerationCall call{};
  std::vector<std::int64_t> prompt{};
  std::string id = random_id("chatcmpl");
  std::int64_t created = unix_time();
  std::optional<Generation> generation{};
  Usage usage{};
  std::shared_ptr<std::string> note = std::make_shared<std::string>();
  Clock::time_point start = Clock::now();

  GoodfireAnswer(Service& s, const HttpRequest& request) : service(s) {
    const json body = parse_body(request.body);
    Fields fields(body);
    call = read_generation(fields, service);
    prompt = goodfire_prompt(fields, service, true);
    if (fields.has("max_completion_tokens")) call.max_tokens = fields.integer("max_completion_tokens", 1, INT64_MAX);
    // The client asks for 2,048 whatever the model: what this server gives at most is meant.
    if (call.max_tokens && service.options.max_tokens > 0)
      call.max_tokens = std::min(*call.max_tokens, service.options.max_tokens);
    call.steering.given |= fields.has("controller");
    call.steering.steering += read_controller(fields, service);
    fields.done();
    if (call.choices != 1) fields.fail("n", "expected one choice");
    usage.prompt = std::ssize(prompt);
    generation.emplace(service, call.stream);
    generation->submit(engine_request(call, prompt, service));
  }

  json envelope(const char* object) const {
    return {{"id", id},
            {"object", object},
            {"created", created},
            {"model", service.name()},
            {"system_fingerprint", "steer"}};
  }

  json whole(const std::function<bool()>& gone) {
    json body = envelope("chat.completion");
    while (auto event = generation->next(gone)) {
      const GenerateResult& result = *event->result;
      usage.add(result);
      body["choices"] = json::array({{{"index", 0},
                                      {"message", {{"role", "assistant"}, {"content", result.text}}},
                                      {"finish_reason", finish_word(result.finish)}}});
      if (const json names = event_names(result); !names.empty()) body["gf_event_names"] = names;
    }
    finish();
    body["usage"] = usage.to_json(call.steering);
    return body;
  }

  /// The client cuts what it reads at "data: ", so no content may spell it, and reads bytes, so they are ASCII.
  static std::string line(const json& event) {
    std::string text = event.dump(-1, ' ', true, json::error_handler_t::replace);
    for (std::size_t at = 0; (at = text.find("data: ", at)) != std::string::npos;) text.replace(at, 6, "data:\\u0020");
    return text;
  }

  void write(EventStream& events, HttpStream& out) {
    std::int64_t index = 0;  // the client drops an index that it has seen
    while (auto event = generation->next([&] { return out.gone(); })) {
      if (index == 0) service.metrics.count_first_token(std::chrono::duration<double>(Clock::now() - start).count());
      json chunk = envelope("chat.completion.chunk");
      json choice{{"index", 0},
                  {"delta", {{"role", "assistant"}, {"content", event->text}}},
                  {"gf_token_index", index++},
                  {"finish_reason", nullptr}};
      if (event->result) {
        usage.add(*event->result);
        choice["finish_reason"] = finish_word(event->result->finish);
        if (const json names = event_names(*event->result); !names.empty()) chunk["gf_event_names"] = names;
      }
      chunk["choices"] = json::array({std::move(choice)});
      events.send_text(line(chunk));
    }
    finish();
    events.done();
  }

  void finish() {
    usage.check_fired(call.steering);
    service.metrics.count_prompt_tokens(usage.prompt);
    service.metrics.count_completion_tokens(usage.completion);
    *note = usage.note(call.steering);
  }
};

HttpReply completions(Service& service, const HttpRequest& request) {
  const auto answer = std::make_shared<GoodfireAnswer>(service, request);
  HttpReply reply = answer->call.stream
                        ? event_reply([answer](EventStream& events, HttpStream& out) { answer->write(events, out); })
                        : json_reply(answer->whole(request.gone));
  reply.note = answer->note;
  return reply;
}

HttpReply tokenize(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  json tokens = json::array();
  for (const auto id : goodfire_prompt(fields, service, false)) tokens.push_back({{"value", service.token_text(id)}});
  fields.done();
  return json_reply({{"tokens", std::move(tokens)}});
}

/// The first token of each text that the answer is to be about; with none, the likeliest tokens.
std::vector<std::pair<std::string, std::int64_t>> vocabulary(Fields& fields, const Service& service) {
  std::vector<std::pair<std::string, std::int64_t>> tokens;
  if (!fields.has("filter_vocabulary")) return tokens;
  for (const json& text : fields.array("filter_vocabulary")) {
    if (!text.is_string()) fields.fail("filter_vocabulary", "expected \"filter_vocabulary\" to be a list of strings");
    const auto ids = service.encode(text.get_ref<const std::string&>(), false);
    if (!ids.empty()) tokens.emplace_back(text.get<std::string>(), ids.front());
  }
  return tokens;
}

HttpReply logits(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  GenerationCall call;
  call.max_tokens = 1;
  call.sampling.temperature = 0;
  auto ids = goodfire_prompt(fields, service, true);
  const std::int64_t top = fields.integer("top_k", 10, 1, service.model.config().vocab_size);
  auto tokens = vocabulary(fields, service);
  call.steering.steering = read_controller(fields, service);
  fields.done();
  const auto values = std::make_shared<std::vector<float>>();
  EngineRequest row = engine_request(call, std::move(ids), service);
  row.on_logits = [values](const LogitsObservation& seen) { values->assign(seen.logits.begin(), seen.logits.end()); };
  Generation generation(service, false);
  generation.submit(std::move(row));
  while (generation.next(request.gone)) {
  }
  if (tokens.empty()) {
    std::vector<std::int64_t> order(values->size());
    std::iota(order.begin(), order.end(), 0);
    const auto count = std::min<std::size_t>(static_cast<std::size_t>(top), order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                      [&](auto a, auto b) { return (*values)[a] > (*values)[b]; });
    for (std::size_t i = 0; i < count; ++i) tokens.emplace_back(service.token_text(order[i]), order[i]);
  }
  json result = json::object();
  for (const auto& [text, id] : tokens)
    if (!result.contains(text)) result[text] = values->at(static_cast<std::size_t>(id));
  return json_reply({{"logits", std::move(result)}});
}

}  // namespace

std::vector<Route> goodfire_chat_routes(Service& service) {
  const auto route = [&service](const char* path, HttpReply (*answer)(Service&, const HttpRequest&)) {
    return Route{"POST", format_text("{}{}", kGoodfire, path),
                 [&service, answer](const HttpRequest& r) { return answer(service, r); }};
  };
  return {route("/chat/completions", completions), route("/chat/tokenize", tokenize),
          route("/chat-attribution/compute-logits", logits)};
}

}  // namespace steer::serve::detail
