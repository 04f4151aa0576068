#include "serve/service.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "core/format_text.hpp"
#include "text/text_decoder.hpp"
#include "text/utf8.hpp"

namespace steer::serve::detail {

namespace {

/// Bytes that the longest token is spelled with; some more for what a tokenizer may leave out, such as repeated spaces.
std::size_t longest_token(const Tokenizer& tokenizer) {
  std::size_t longest = 64;
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id) longest = std::max(longest, tokenizer.token(id).size());
  return longest;
}

}  // namespace

Service::Service(Model m, ServerOptions o)
    : model(std::move(m)),
      options(std::move(o)),
      loop(model, options.engine),
      started(unix_time()),
      longest_(longest_token(model.tokenizer())),
      anchor_(model.tokenizer().encode("a", {.add_special = false})) {}

const Steering* Service::check_model(Fields& fields) const {
  const std::string wanted = fields.text("model", name());
  if (std::ranges::find(options.names, wanted) != options.names.end()) return nullptr;
  for (const auto& served : options.names)
    if (wanted.size() > served.size() && wanted.starts_with(served) && wanted[served.size()] == '+')
      if (const auto found = options.steerings.find(wanted.substr(served.size() + 1)); found != options.steerings.end())
        return &found->second;
  if (options.any_name) return nullptr;
  throw ApiError(
      404, format_text("the model \"{}\" does not exist; served here: {}", wanted, fmt::join(options.names, ", ")),
      fields.name("model"), "model_not_found");
}

const ServedSae& Service::sae(std::string_view wanted, const std::string& param) const {
  if (options.saes.empty()) throw ApiError(400, "this server has no SAE; start it with one (--sae PATH)", param);
  if (wanted.empty()) return options.saes.front();
  std::vector<std::string> names;
  for (const auto& served : options.saes) {
    if (served.name == wanted || served.sae.hash() == wanted) return served;
    names.push_back(served.name);
  }
  throw ApiError(404, format_text("no SAE is called \"{}\"; served here: {}", wanted, fmt::join(names, ", ")), param);
}

void Service::check_length(std::size_t bytes, const std::string& param) const {
  const std::size_t most = longest_ * static_cast<std::size_t>(model.config().context);
  if (bytes > most)
    throw ApiError(
        400,
        format_text("\"{}\" has {} bytes, far more than this model's context of {} tokens can hold; shorten it", param,
                    bytes, model.config().context),
        param, "context_length_exceeded");
}

std::vector<std::int64_t> Service::encode(std::string_view text, bool add_special) const {
  check_length(text.size(), "prompt");
  return model.tokenizer().encode(text, {.add_special = add_special});
}

std::string Service::token_text(std::int64_t id) const {
  StreamDecoder decoder(model.tokenizer());
  for (const auto before : anchor_) decoder.push(before);
  return decoder.push(id) + decoder.finish();
}

std::string Service::token_bytes(std::int64_t id) const {
  std::string text = token_text(id);
  if (text.find("\xEF\xBF\xBD") == std::string::npos) return text;
  const std::string piece = model.tokenizer().token(id);
  if (piece.size() == 6 && piece.starts_with("<0x"))
    return {static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16))};
  std::string bytes;
  for (std::size_t at = 0; at < piece.size();) {
    const auto step = text::detail::utf8_step(piece, at);
    const int byte = text::detail::byte_of_alphabet(step.code);
    if (byte < 0) return text;
    bytes += static_cast<char>(byte);
    at += step.length;
  }
  return bytes;
}

std::int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string listed(const std::vector<std::string>& names) {
  return names.empty() ? "none" : format_text("{}", fmt::join(names, ", "));
}

std::string random_id(std::string_view prefix) {
  thread_local std::random_device device;
  return format_text("{}-{:08x}{:08x}{:08x}", prefix, device(), device(), device());
}

}  // namespace steer::serve::detail
