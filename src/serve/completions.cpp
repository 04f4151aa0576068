// /v1/completions: texts or ids in, their continuations out.

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "core/format_text.hpp"
#include "serve/generation_call.hpp"
#include "serve/sse.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostPrompts = 2048;

struct Call {
  GenerationCall generation;
  std::vector<std::vector<std::int64_t>> prompts;
  bool echo = false, prompt_log_probs = false;
  std::string id = random_id("cmpl"), model;
  std::int64_t created = unix_time();
  std::optional<ResidualCapture> residuals{};
};

std::vector<std::vector<std::int64_t>> read_prompts(Fields& fields, const Service& service) {
  const bool add_special = fields.boolean("add_special_tokens", true);
  const json& source = fields.at("prompt");
  std::vector<std::vector<std::int64_t>> prompts;
  const auto ids = [&](const json& list) {
    std::vector<std::int64_t> result;
    for (const json& id : list) {
      const bool whole = id.is_number_integer() && (!id.is_number_unsigned() || id.get<std::uint64_t>() < INT32_MAX);
      if (!whole || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= service.model.config().vocab_size)
        fields.fail("prompt",
                    format_text("expected token ids in [0, {}) in \"prompt\"", service.model.config().vocab_size));
      result.push_back(id.get<std::int64_t>());
    }
    return result;
  };
  const auto one = [&](const json& item) {
    if (item.is_string())
      prompts.push_back(service.encode(item.get_ref<const std::string&>(), add_special));
    else if (item.is_array())
      prompts.push_back(ids(item));
    else
      fields.fail("prompt", "expected \"prompt\" to be a string, a list of strings, of token ids, or of such lists");
    if (prompts.back().empty()) fields.fail("prompt", "expected a prompt of at least one token");
  };
  if (source.is_array() && !source.empty() && !source.front().is_number())
    for (const json& item : source) one(item);
  else
    one(source);
  if (prompts.size() > kMostPrompts) fields.fail("prompt", format_text("expected at most {} prompts", kMostPrompts));
  return prompts;
}

Call read_call(const HttpRequest& request, Service& service) {
  const json body = parse_body(request.body);
  Fields fields(body);
  Call call{.generation = read_generation(fields, service), .model = service.name()};
  call.prompts = read_prompts(fields, service);
  call.echo = fields.boolean("echo", false);
  if (fields.has("logprobs")) call.generation.top = fields.integer("logprobs", 0, 20);
  call.generation.max_tokens = fields.integer("max_tokens", 16, 0, INT64_MAX);
  if (fields.integer("best_of", call.generation.choices, 1, INT64_MAX) != call.generation.choices)
    fields.fail("best_of", "\"best_of\" is not supported: ask for \"n\" answers and choose");
  fields.refuse({"suffix"}, "the model continues texts, it does not fill gaps");
  fields.done();
  if (*call.generation.max_tokens == 0 && !call.echo)
    fields.fail("max_tokens", "expected \"max_tokens\" of at least 1, or \"echo\": true");
  if (std::ssize(call.prompts) * call.generation.choices > service.options.max_choices && call.generation.choices > 1)
    fields.fail("n", format_text("expected at most {} rows in a request", service.options.max_choices));
  if (call.echo && call.generation.stream) fields.fail("echo", "\"echo\" is not supported with \"stream\"");
  // The one token asked for is there even where it is an end: programs that score prompts count on it.
  if (call.echo && call.generation.top >= 0 && *call.generation.max_tokens == 1) call.generation.ignore_eos = true;
  call.prompt_log_probs = call.generation.prompt_top >= 0;
  if (call.prompt_log_probs && call.generation.stream)
    fields.fail("prompt_logprobs", "\"prompt_logprobs\" is not supported with \"stream\"");
  if (call.echo && call.generation.top >= 0)
    call.generation.prompt_top = std::max(call.generation.prompt_top, call.generation.top);
  if (call.prompts.size() * static_cast<std::size_t>(call.generation.choices) > 1 &&
      !call.generation.steering.residual_layers.empty())
    fields.fail("vllm_xargs", "\"output_residual_stream\" is for requests of one row");
  call.residuals = residual_capture(call.generation, service);
  return call;
}

/// OpenAI's lists beside each other, token by token.
struct LogProbs {
  json tokens = json::array(), values = json::array(), top = json::array(), offsets = json::array();
  std::size_t offset = 0;

  void add(const Service& service, const std::string& text, const json& value, const TopTokens* alternatives) {
    tokens.push_back(text);
    values.push_back(value);
    offsets.push_back(offset);
    offset += text.size();
    json entry = alternatives ? json::object() : json();
    if (alternatives)
      for (const auto& [id, log_probability] : *alternatives) entry.emplace(service.token_text(id), log_probability);
    top.push_back(std::move(entry));
  }
  json to_json() const {
    return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", top}, {"text_offset", offsets}};
  }
};

/// With the token itself among its alternatives, as in OpenAI's API.
TopTokens with_own(TopTokens top, std::int64_t id, double log_probability) {
  if (std::ranges::find(top, id, &TopTokens::value_type::first) == top.end()) top.emplace_back(id, log_probability);
  return top;
}

void add_prompt(LogProbs& out, const Service& service, const std::vector<std::int64_t>& ids,
                const GenerateResult& result) {
  StreamDecoder decoder(service.model.tokenizer());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string text = decoder.push(ids[i]);
    if (i == 0) {  // nothing precedes it
      out.add(service, text, nullptr, nullptr);
      continue;
    }
    const double value = result.prompt_log_probabilities[i - 1];
    const auto top = with_own(i <= result.prompt_top.size() ? result.prompt_top[i - 1] : TopTokens{}, ids[i], value);
    out.add(service, text, value, &top);
  }
}

void add_generated(LogProbs& out, const Service& service, const GenerateResult& result) {
  StreamDecoder decoder(service.model.tokenizer());
  for (std::size_t i = 0; i < result.ids.size(); ++i) {
    const auto top =
        with_own(i < result.top.size() ? result.top[i] : TopTokens{}, result.ids[i], result.log_probabilities[i]);
    out.add(service, decoder.push(result.ids[i]), result.log_probabilities[i], &top);
  }
}

/// vLLM's "prompt_logprobs": null for the first token, then {"id": {"logprob", "rank", "decoded_token"}}.
json prompt_log_probs(const Service& service, const std::vector<std::int64_t>& ids, const GenerateResult& result) {
  json list = json::array({nullptr});
  for (std::size_t i = 1; i < ids.size(); ++i) {
    json entry = json::object();
    const auto& top = i <= result.prompt_top.size() ? result.prompt_top[i - 1] : TopTokens{};
    std::int64_t rank = 0;
    for (const auto& [id, value] : with_own(top, ids[i], result.prompt_log_probabilities[i - 1])) {
      entry[std::to_string(id)] = {{"logprob", value}, {"decoded_token", service.token_text(id)}};
      if (++rank <= std::ssize(top)) entry[std::to_string(id)]["rank"] = rank;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

json choice_json(const Service& service, const Call& call, std::int64_t index, const GenerateResult& result) {
  const auto prompt = static_cast<std::size_t>(index / call.generation.choices);
  json choice{{"index", index}, {"text", result.text}, {"logprobs", nullptr}};
  if (call.echo)
    choice["text"] = service.model.tokenizer().decode(call.prompts[prompt], {.skip_special = true}) + result.text;
  if (call.generation.top >= 0) {
    LogProbs lists;
    if (call.echo) add_prompt(lists, service, call.prompts[prompt], result);
    add_generated(lists, service, result);
    choice["logprobs"] = lists.to_json();
  }
  choice["finish_reason"] = finish_word(result.finish);
  if (const auto reason = stop_reason(result); !reason.is_null()) choice["stop_reason"] = reason;
  if (call.prompt_log_probs) choice["prompt_logprobs"] = prompt_log_probs(service, call.prompts[prompt], result);
  return choice;
}

json envelope(const Call& call) {
  return {{"id", call.id},
          {"object", "text_completion"},
          {"created", call.created},
          {"model", call.model},
          {"system_fingerprint", "steer"}};
}

void submit_all(Generation& generation, Call& call, const Service& service, Usage& usage) {
  for (const auto& prompt : call.prompts) {
    usage.prompt += std::ssize(prompt);
    EngineRequest request = engine_request(call.generation, prompt, service);
    if (call.residuals) request.observers = call.residuals->observers();
    generation.submit(std::move(request));
  }
}

HttpReply answer(Service& service, const HttpRequest& request) {
  const auto start = Clock::now();
  auto call = std::make_shared<Call>(read_call(request, service));
  auto generation = std::make_shared<Generation>(service, call->generation.stream);
  auto usage = std::make_shared<Usage>();
  auto note = std::make_shared<std::string>();
  submit_all(*generation, *call, service, *usage);

  const auto finish = [&service, call, usage, note] {
    usage->check_fired(call->generation.steering);
    service.metrics.count_prompt_tokens(usage->prompt);
    service.metrics.count_completion_tokens(usage->completion);
    *note = usage->note(call->generation.steering);
  };

  if (!call->generation.stream) {
    json choices = json::array();
    std::vector<std::shared_ptr<const GenerateResult>> results(static_cast<std::size_t>(generation->choices()));
    while (auto event = generation->next(request.gone)) {
      usage->add(*event->result);
      results[static_cast<std::size_t>(event->choice)] = event->result;
    }
    for (std::size_t i = 0; i < results.size(); ++i)
      choices.push_back(choice_json(service, *call, static_cast<std::int64_t>(i), *results[i]));
    finish();
    json body = envelope(*call);
    body["choices"] = std::move(choices);
    body["usage"] = usage->to_json(call->generation.steering);
    if (call->residuals) body["activations"] = call->residuals->to_json();
    HttpReply reply = json_reply(body);
    reply.note = note;
    return reply;
  }

  HttpReply reply = event_reply([&service, call, generation, usage, finish, start](EventStream& events,
                                                                                   HttpStream& out) {
    bool first = true;
    std::vector<LogProbs> lists(static_cast<std::size_t>(generation->choices()));
    const auto chunk = [&](json choice) {
      json event = envelope(*call);
      event["choices"] = choice.is_null() ? json::array() : json::array({std::move(choice)});
      if (call->generation.include_usage) event["usage"] = nullptr;
      return event;
    };
    while (auto event = generation->next([&] { return out.gone(); })) {
      if (first) service.metrics.count_first_token(std::chrono::duration<double>(Clock::now() - start).count());
      first = false;
      json choice{{"index", event->choice}, {"text", event->text}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
      if (call->generation.top >= 0 && event->id >= 0) {
        LogProbs list{.offset = lists[static_cast<std::size_t>(event->choice)].offset};
        const auto top = with_own(event->top, event->id, event->log_probability);
        list.add(service, service.token_text(event->id), event->log_probability, &top);
        lists[static_cast<std::size_t>(event->choice)].offset = list.offset;
        choice["logprobs"] = list.to_json();
      }
      if (event->result) {
        usage->add(*event->result);
        choice["finish_reason"] = finish_word(event->result->finish);
        if (const auto reason = stop_reason(*event->result); !reason.is_null()) choice["stop_reason"] = reason;
      }
      events.send(chunk(std::move(choice)));
    }
    finish();
    if (call->generation.include_usage) {
      json last = chunk(nullptr);
      last["usage"] = usage->to_json(call->generation.steering);
      events.send(last);
    }
    events.done();
  });
  reply.note = note;
  return reply;
}

}  // namespace

std::vector<Route> completion_routes(Service& service) {
  return {{"POST", "/v1/completions", [&service](const HttpRequest& request) { return answer(service, request); }}};
}

}  // namespace steer::serve::detail
