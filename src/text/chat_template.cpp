#include <steer/text/chat_template.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "text/jinja/template.hpp"
#include "text/stock_templates.hpp"
#include "text/tokenizer_impl.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace steer {
namespace {

using namespace text::detail::jinja;
constexpr std::string_view kRender = "ChatTemplate::render";

// Names of a template's variables that are ours to set.
constexpr std::string_view prompt_variable = "add_generation_prompt";

template <class T>
Value shared(T value) {
  return Value(std::make_shared<const T>(std::move(value)));
}

/// Contents are marked with the message they are of.
Value value_of(const std::vector<Message>& messages) {
  static const Value role = Value::text("role"), content = Value::text("content"),
                     reasoning = Value::text("reasoning_content"), thinking = Value::text("thinking");
  Sequence out;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto marked = [&](const std::string& from) {
      std::string text;
      text::detail::utf8_append_lossy(text, from);
      return shared(String{MarkedText(text, static_cast<std::int32_t>(i)), false});
    };
    Dict message;
    message.items = {{role, Value::text(to_string(messages[i].role))}, {content, marked(messages[i].content)}};
    // Under both names, in the order that transformers gives them.
    if (!messages[i].reasoning.empty()) {
      const Value text = marked(messages[i].reasoning);
      message.items.emplace(message.items.begin(), thinking, text);
      message.items.emplace_back(reasoning, text);
    }
    out.items.push_back(shared(std::move(message)));
  }
  out.depth = 2;
  return shared(std::move(out));
}

bool is_blank(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto step = text::detail::utf8_step(text, at);
    if (!text::detail::is_white_space(step.code)) return false;
    at += step.length;
  }
  return true;
}

/// The tokens that share a byte with [begin, end), given in the order of the text.
void extend(RenderedChat::Span& span, std::size_t at, const TokenSpan& token, std::int64_t begin, std::int64_t end) {
  if (token.end <= begin || token.begin >= end) return;
  const auto position = static_cast<std::int64_t>(at);
  if (span.begin == span.end) span.begin = position;
  span.end = position + 1;
}

}  // namespace

struct ChatTemplate::Impl {
  Impl(std::string_view text, Tokenizer own, bool adds_special)
      : source(text), program(text), tokenizer(std::move(own)), add_special(adds_special) {
    end_of_turn = find_end_of_turn();
  }

  std::string source;
  Template program;
  Tokenizer tokenizer;
  bool add_special;  ///< the tokenizer adds BOS: no template does
  std::vector<std::int64_t> end_of_turn;

  MarkedText text_of(const std::vector<Message>& messages, const ChatOptions& options) const {
    const auto& names = tokenizer.special_names();
    const auto more = options.variables.empty() ? nlohmann::ordered_json::object()
                                                : io::detail::parse_json<nlohmann::ordered_json>(
                                                      options.variables, kRender, "ChatOptions::variables");
    require(more.is_object(), ErrorCode::argument, kRender,
            "expected ChatOptions::variables to be a JSON object but got {}", io::detail::brief(more));
    Variables variables;
    // Files without a name for it still have the token.
    const auto unnamed = [&](std::string_view name, std::optional<std::int64_t> id) {
      if (id && std::ranges::find(names, name, &std::pair<std::string, std::string>::first) == names.end())
        variables.emplace_back(name, Value::text(tokenizer.token(*id)));
    };
    unnamed("bos_token", tokenizer.bos());
    unnamed("eos_token", tokenizer.eos());
    for (const auto& [name, token] : names) variables.emplace_back(name, Value::text(token));
    variables.emplace_back("messages", value_of(messages));
    variables.emplace_back("tools", None{});
    variables.emplace_back("documents", None{});
    variables.emplace_back(prompt_variable, Value(options.generation_prompt));
    if (!options.date.empty()) variables.emplace_back("date_string", Value::text(options.date));
    for (const auto& item : more.items()) variables.emplace_back(item.key(), from_json(item.value()));
    return program.render(variables, options.now);
  }

  std::vector<TokenSpan> tokens_of(const MarkedText& text, bool parse_special_in_content) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> untrusted;
    if (!parse_special_in_content)
      for (const Mark& mark : text.marks()) untrusted.emplace_back(mark.begin, mark.end);
    return tokenizer.encode_spans(text.bytes(),
                                  {.add_special = add_special, .parse_special = true, .untrusted = untrusted});
  }

  /// Where the text leaves that without a generation prompt.
  std::size_t prompt_begin(std::string_view text, const std::vector<Message>& messages, ChatOptions options) const {
    if (!options.generation_prompt || !program.uses(prompt_variable)) return text.size();
    options.generation_prompt = false;
    try {
      const MarkedText without = text_of(messages, options);
      const auto apart = std::mismatch(text.begin(), text.end(), without.bytes().begin(), without.bytes().end());
      return static_cast<std::size_t>(apart.first - text.begin());
    } catch (const Error&) {
      return text.size();  // the template makes no conversation without it
    }
  }

  /// What the format writes behind an assistant's message: the first token after it, white space aside, if it is one
  /// that no text spells. Asked of a message at the end first, as it stands when a model has written it.
  std::vector<std::int64_t> find_end_of_turn() const {
    std::vector<std::int64_t> out;
    const Message question{Role::user, "question"}, answer{Role::assistant, "answer"};
    for (const auto& chat : {std::vector{question, answer}, std::vector{question, answer, question}}) {
      try {
        if (const auto id = token_behind(text_of(chat, {.generation_prompt = false}), 1)) {
          out.push_back(*id);
          break;
        }
      } catch (const Error&) {  // a template that refuses such a conversation, or one that fails whenever it is run
      }
    }
    if (const auto named = tokenizer.end_of_turn(); named && std::ranges::find(out, *named) == out.end())
      out.push_back(*named);
    return out;
  }

  std::optional<std::int64_t> token_behind(const MarkedText& text, std::int32_t message) const {
    const auto last = std::ranges::find(text.marks().rbegin(), text.marks().rend(), message, &Mark::source);
    if (last == text.marks().rend()) return std::nullopt;
    const std::string_view rest = text.bytes().substr(last->end);
    for (const TokenSpan& token : tokenizer.encode_spans(rest, {.add_special = false})) {
      const std::string_view spelled =
          rest.substr(static_cast<std::size_t>(token.begin), static_cast<std::size_t>(token.end - token.begin));
      if (is_blank(spelled)) continue;
      return tokenizer.is_added(token.id) ? std::optional(token.id) : std::nullopt;
    }
    return std::nullopt;
  }
};

ChatTemplate::ChatTemplate(Tokenizer tokenizer) {
  if (const auto& source = tokenizer.chat_template()) {
    impl_ = std::make_shared<const Impl>(*source, std::move(tokenizer), false);
    return;
  }
  std::string names;
  for (const auto& [name, source] : tokenizer.chat_templates()) names += (names.empty() ? "" : ", ") + name;
  require(names.empty(), ErrorCode::unsupported, "ChatTemplate",
          "expected a chat template named default but the tokenizer's files have only {}; choose one of "
          "Tokenizer::chat_templates()",
          names);
  impl_ = std::make_shared<const Impl>(text::detail::stock_template(ChatFormat::plain), std::move(tokenizer), true);
}

ChatTemplate::ChatTemplate(ChatFormat format, Tokenizer tokenizer)
    : impl_(std::make_shared<const Impl>(text::detail::stock_template(format), std::move(tokenizer),
                                         format == ChatFormat::plain)) {}

ChatTemplate::ChatTemplate(std::string_view source, Tokenizer tokenizer)
    : impl_(std::make_shared<const Impl>(source, std::move(tokenizer), false)) {}

const std::string& ChatTemplate::source() const { return impl_->source; }
const std::vector<std::int64_t>& ChatTemplate::end_of_turn() const { return impl_->end_of_turn; }

RenderedChat ChatTemplate::render(const std::vector<Message>& messages, const ChatOptions& options) const {
  require(!messages.empty(), ErrorCode::argument, kRender, "expected at least one message but got none");
  const MarkedText text = impl_->text_of(messages, options);
  const std::vector<TokenSpan> tokens = impl_->tokens_of(text, options.parse_special_in_content);
  const auto prompt = static_cast<std::int64_t>(impl_->prompt_begin(text.bytes(), messages, options));
  const auto size = static_cast<std::int64_t>(text.size());
  RenderedChat out;
  out.messages.resize(messages.size());
  auto mark = text.marks().begin();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    out.ids.push_back(tokens[i].id);
    extend(out.generation_prompt, i, tokens[i], prompt, size);
    while (mark != text.marks().end() && static_cast<std::int64_t>(mark->end) <= tokens[i].begin) ++mark;
    for (auto m = mark; m != text.marks().end() && static_cast<std::int64_t>(m->begin) < tokens[i].end; ++m)
      extend(out.messages[static_cast<std::size_t>(m->source)], i, tokens[i], m->begin, m->end);
  }
  out.text = std::string(text.bytes());
  return out;
}

}  // namespace steer
