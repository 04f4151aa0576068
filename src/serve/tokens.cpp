// /tokenize, /detokenize, /tokenizer_info: texts as ids and back, in vLLM's shapes.

#include <nlohmann/json.hpp>

#include "serve/chat_messages.hpp"
#include "serve/service.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

json tokenize(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const bool spellings = fields.boolean("return_token_strs", false);
  std::vector<std::int64_t> ids;
  if (fields.has("messages")) {
    ids = render_messages(fields, service);
    fields.ignore({"add_special_tokens"});
  } else {
    ids = service.encode(fields.text("prompt"), fields.boolean("add_special_tokens", true));
  }
  fields.done();
  json result{{"count", ids.size()}, {"max_model_len", service.model.config().context}, {"tokens", ids}};
  if (spellings)
    for (const auto id : ids) result["token_strs"].push_back(service.model.tokenizer().token(id));
  return result;
}

json detokenize(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const auto ids = fields.integers("tokens", 0, service.model.tokenizer().vocab_size() - 1);
  fields.done();
  return {{"prompt", service.model.tokenizer().decode(ids)}};
}

json tokenizer_info(Service& service) {
  const Tokenizer& tokenizer = service.model.tokenizer();
  json info{{"model_max_length", service.model.config().context}, {"vocab_size", tokenizer.vocab_size()}};
  for (const auto& [name, token] : tokenizer.special_names()) info[name] = token;
  if (!info.contains("bos_token") && tokenizer.bos()) info["bos_token"] = tokenizer.token(*tokenizer.bos());
  if (!info.contains("eos_token") && tokenizer.eos()) info["eos_token"] = tokenizer.token(*tokenizer.eos());
  info["chat_template"] = service.model.chat().source();
  return info;
}

}  // namespace

std::vector<Route> token_routes(Service& service) {
  const auto tokens = [&service](const HttpRequest& request) { return json_reply(tokenize(service, request)); };
  const auto text = [&service](const HttpRequest& request) { return json_reply(detokenize(service, request)); };
  const auto info = [&service](const HttpRequest&) { return json_reply(tokenizer_info(service)); };
  return {{"POST", "/tokenize", tokens},    {"POST", "/v1/tokenize", tokens}, {"POST", "/detokenize", text},
          {"POST", "/v1/detokenize", text}, {"GET", "/tokenizer_info", info}, {"GET", "/v1/tokenizer_info", info}};
}

}  // namespace steer::serve::detail
