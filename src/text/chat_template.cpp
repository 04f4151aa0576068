#include <steer/text/chat_template.hpp>

#include <algorithm>

#include <steer/core/error.hpp>

#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace steer {
namespace {

constexpr std::string_view where = "ChatTemplate::render";

// Jinja's `trim` is Python's str.strip, which counts the ASCII separators as white space.
bool is_trimmed(char32_t code) { return text::detail::is_white_space(code) || (code >= 0x1C && code <= 0x1F); }

std::string_view trim_end(std::string_view text) {
  while (!text.empty()) {
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    const text::detail::Utf8Step step = text::detail::utf8_step(text, at);
    if (at + step.length != text.size() || !is_trimmed(step.code)) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string_view trim(std::string_view text) {
  while (!text.empty()) {
    const text::detail::Utf8Step step = text::detail::utf8_step(text, 0);
    if (!is_trimmed(step.code)) break;
    text.remove_prefix(step.length);
  }
  return trim_end(text);
}

std::string_view trim_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// Collects a conversation piece by piece, remembering which special tokens the template itself wrote. Text between
// two of those is encoded as a whole, as the reference does: a token may join template text and content.
class Builder {
 public:
  Builder(const Tokenizer& tokenizer, std::size_t messages) : tokenizer_(tokenizer), contents_(messages) {}

  Builder& special(std::string_view token) {
    if (const auto id = tokenizer_.id_of(token)) specials_.push_back({text_.size(), text_.size() + token.size(), *id});
    text_ += token;
    return *this;
  }
  Builder& bos() { return control(tokenizer_.bos()); }
  Builder& eos() { return control(tokenizer_.eos()); }
  Builder& text(std::string_view text) {
    text_ += text;
    return *this;
  }
  Builder& content(std::size_t message, std::string_view text) {
    contents_[message] = {text_.size(), text_.size() + text.size()};
    text_ += text;
    return *this;
  }
  void begin_generation_prompt() { generation_ = {text_.size(), text_.size()}; }
  void end_generation_prompt() { generation_.end = text_.size(); }

  RenderedChat finish(bool parse_special, bool add_special) {
    RenderedChat out;
    std::vector<TokenSpan> tokens;
    const auto encode = [&](std::size_t begin, std::size_t end) {
      const EncodeOptions options{.add_special = add_special, .parse_special = parse_special};
      if (begin == end && !add_special) return;
      for (TokenSpan token : tokenizer_.encode_spans(std::string_view(text_).substr(begin, end - begin), options)) {
        token.begin += static_cast<std::int64_t>(begin);
        token.end += static_cast<std::int64_t>(begin);
        tokens.push_back(token);
      }
    };
    if (parse_special) {
      encode(0, text_.size());
    } else {
      std::size_t done = 0;
      for (const Special& special : specials_) {
        encode(done, special.begin);
        tokens.push_back(
            {special.id, static_cast<std::int64_t>(special.begin), static_cast<std::int64_t>(special.end)});
        done = special.end;
      }
      encode(done, text_.size());
    }
    for (const Range& range : contents_) out.messages.push_back(positions(tokens, range));
    out.generation_prompt = positions(tokens, generation_);
    for (const TokenSpan& token : tokens) out.ids.push_back(token.id);
    out.text = std::move(text_);
    return out;
  }

 private:
  struct Range {
    std::size_t begin = 0, end = 0;
  };
  struct Special {
    std::size_t begin, end;
    std::int64_t id;
  };
  Builder& control(std::optional<std::int64_t> id) { return id ? special(tokenizer_.token(*id)) : *this; }

  // The tokens that share a byte with the range.
  static RenderedChat::Span positions(const std::vector<TokenSpan>& tokens, Range range) {
    RenderedChat::Span span;
    const auto begin = static_cast<std::int64_t>(range.begin), end = static_cast<std::int64_t>(range.end);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i].end <= begin || tokens[i].begin >= end || begin == end) continue;
      if (span.begin == span.end) span.begin = static_cast<std::int64_t>(i);
      span.end = static_cast<std::int64_t>(i) + 1;
    }
    return span;
  }

  const Tokenizer& tokenizer_;
  std::string text_;
  std::vector<Special> specials_;
  std::vector<Range> contents_;
  Range generation_;
};

using Messages = std::vector<Message>;

void require_alternation(const Messages& messages, std::size_t first, std::string_view words) {
  for (std::size_t i = first; i < messages.size(); ++i)
    require((messages[i].role == Role::user) == ((i - first) % 2 == 0), ErrorCode::argument, where,
            "{} (message {} is of role {})", words, i, to_string(messages[i].role));
}

constexpr std::string_view alternation = "Conversation roles must alternate user/assistant/user/assistant/...";

void render_plain(const Messages& messages, Builder& out) {
  for (std::size_t i = 0; i < messages.size(); ++i) out.text(i > 0 ? "\n\n" : "").content(i, messages[i].content);
}

void render_llama2(const Messages& messages, Builder& out) {
  const bool system = messages[0].role == Role::system;
  const std::size_t first = system ? 1 : 0;
  require_alternation(messages, first, alternation);
  for (std::size_t i = first; i < messages.size(); ++i) {
    const std::string& content = messages[i].content;
    if (messages[i].role == Role::user) {
      out.bos().text("[INST] ");
      if (system && i == first) {
        // The whole is trimmed: its start is the system block's.
        const std::string_view trimmed = trim_end(content);
        out.text("<<SYS>>\n").content(0, messages[0].content).text(trimmed.empty() ? "\n<</SYS>>" : "\n<</SYS>>\n\n");
        out.content(i, trimmed);
      } else {
        out.content(i, trim(content));
      }
      out.text(" [/INST]");
    } else if (messages[i].role == Role::assistant) {
      out.text(" ").content(i, trim(content)).text(" ").eos();
    }
  }
}

void llama3_header(std::string_view role, Builder& out) {
  out.special("<|start_header_id|>").text(role).special("<|end_header_id|>").text("\n\n");
}

void render_llama3(const Messages& messages, const ChatOptions& options, bool with_dates, Builder& out) {
  std::size_t first = 0;
  out.bos();
  if (with_dates) {
    llama3_header("system", out);
    out.text("Cutting Knowledge Date: December 2023\nToday Date: ");
    out.text(options.date.empty() ? "26 Jul 2024" : options.date).text("\n\n");
    if (messages[0].role == Role::system) out.content(first++, trim(messages[0].content));
    out.special("<|eot_id|>");
  }
  for (std::size_t i = first; i < messages.size(); ++i) {
    llama3_header(to_string(messages[i].role), out);
    out.content(i, trim(messages[i].content)).special("<|eot_id|>");
  }
  if (!options.generation_prompt) return;
  out.begin_generation_prompt();
  llama3_header("assistant", out);
  out.end_generation_prompt();
}

void render_gemma(const Messages& messages, const ChatOptions& options, bool takes_system, Builder& out) {
  const bool system = messages[0].role == Role::system;
  require(!system || takes_system, ErrorCode::argument, where, "System role not supported");
  const std::size_t first = system ? 1 : 0;
  require_alternation(messages, first, alternation);
  out.bos();
  for (std::size_t i = first; i < messages.size(); ++i) {
    const bool model = messages[i].role == Role::assistant;
    out.special("<start_of_turn>").text(model ? "model" : to_string(messages[i].role)).text("\n");
    if (system && i == first) out.content(0, messages[0].content).text("\n\n");
    out.content(i, trim(messages[i].content)).special("<end_of_turn>").text("\n");
  }
  if (!options.generation_prompt) return;
  out.begin_generation_prompt();
  out.special("<start_of_turn>").text("model\n");
  out.end_generation_prompt();
}

void render_chatml(const Messages& messages, const ChatOptions& options, std::string_view default_system, bool thinks,
                   Builder& out) {
  if (!default_system.empty() && messages[0].role != Role::system)
    out.special("<|im_start|>").text("system\n").text(default_system).special("<|im_end|>").text("\n");
  std::size_t last_query = messages.size() - 1;
  for (std::size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    if (messages[i].role == Role::user &&
        !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>"))) {
      last_query = i;
      break;
    }
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    std::string_view content = messages[i].content, reasoning;
    out.special("<|im_start|>").text(to_string(messages[i].role)).text("\n");
    if (thinks && messages[i].role == Role::assistant) {
      if (const std::size_t end = content.find("</think>"); end != std::string_view::npos) {
        reasoning = trim_newlines(content.substr(0, end), false, true);
        if (const std::size_t begin = reasoning.rfind("<think>"); begin != std::string_view::npos)
          reasoning.remove_prefix(begin + 7);
        reasoning = trim_newlines(reasoning, true, true);
        content = trim_newlines(content.substr(content.rfind("</think>") + 8), true, false);
      }
      if (i > last_query && (i + 1 == messages.size() || !reasoning.empty())) {
        out.text("<think>\n").text(reasoning).text("\n</think>\n\n");
        content = trim_newlines(content, true, false);
      }
    }
    out.content(i, content).special("<|im_end|>").text("\n");
  }
  if (!options.generation_prompt) return;
  out.begin_generation_prompt();
  out.special("<|im_start|>").text("assistant\n");
  out.end_generation_prompt();
}

void render_mistral(const Messages& messages, Builder& out) {
  const bool system = messages[0].role == Role::system;
  const std::size_t first = system ? 1 : 0;
  require_alternation(
      messages, first,
      "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...");
  out.bos();
  for (std::size_t i = first; i < messages.size(); ++i) {
    require(messages[i].role != Role::system, ErrorCode::argument, where,
            "Only user and assistant roles are supported, with the exception of an initial optional system message!");
    if (messages[i].role == Role::assistant) {
      out.text(" ").content(i, messages[i].content).eos();
      continue;
    }
    out.text(" [INST] ");
    if (system && i == first) out.content(0, messages[0].content).text("\n\n");
    out.content(i, messages[i].content).text(" [/INST]");
  }
}

constexpr std::string_view qwen2_system = "You are a helpful assistant.";
constexpr std::string_view qwen2_5_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

// Whether a ChatML template writes a system message of its own: text right behind the header, in a string literal.
bool has_default_system(std::string_view source) {
  for (std::size_t at = 0; (at = source.find("<|im_start|>system", at)) != std::string_view::npos;) {
    at += 18;
    std::string_view rest = source.substr(at);
    if (rest.starts_with("\\n"))
      rest.remove_prefix(2);
    else if (rest.starts_with("\n"))
      rest.remove_prefix(1);
    if (!rest.empty() && ((rest[0] >= 'A' && rest[0] <= 'Z') || (rest[0] >= 'a' && rest[0] <= 'z'))) return true;
  }
  return false;
}

}  // namespace

ChatTemplate::ChatTemplate(ChatFormat format, Tokenizer tokenizer)
    : format_(format), tokenizer_(std::move(tokenizer)) {}

ChatFormat ChatTemplate::recognise(std::string_view source) {
  const auto has = [&](std::string_view text) { return source.find(text) != std::string_view::npos; };
  if (has("<|start_header_id|>") && has("<|eot_id|>"))
    return has("Cutting Knowledge Date") ? ChatFormat::llama3_1 : ChatFormat::llama3;
  if (has("<start_of_turn>")) return has("System role not supported") ? ChatFormat::gemma2 : ChatFormat::gemma;
  if (has("<|im_start|>") && !has("<|im_sep|>")) {
    if (has("last_query_index")) return ChatFormat::qwen3;
    if (has(qwen2_5_system)) return ChatFormat::qwen2_5;
    if (has("<|im_start|>system\\nYou are a helpful assistant.<|im_end|>") ||
        has("<|im_start|>system\nYou are a helpful assistant.<|im_end|>"))
      return ChatFormat::qwen2;
    if (!has_default_system(source)) return ChatFormat::chatml;
  }
  if (has("[INST]")) {
    if (has("<<SYS>>")) return ChatFormat::llama2;
    if (has("\" [INST] \"") || has("' [INST] '")) return ChatFormat::mistral;
  }
  std::string known;
  for (const auto& entry : EnumTable<ChatFormat>::entries)
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  fail(ErrorCode::unsupported, "ChatTemplate::recognise",
       "expected a chat template that steer knows ({}) but got another: {}...; choose a format yourself, or render the "
       "text",
       known, source.substr(0, std::min<std::size_t>(source.size(), 120)));
}

RenderedChat ChatTemplate::render(const std::vector<Message>& messages, const ChatOptions& options) const {
  require(!messages.empty(), ErrorCode::argument, where, "expected at least one message but got none");
  Builder out(tokenizer_, messages.size());
  switch (format_) {
    case ChatFormat::plain:
      render_plain(messages, out);
      break;
    case ChatFormat::llama2:
      render_llama2(messages, out);
      break;
    case ChatFormat::llama3:
      render_llama3(messages, options, false, out);
      break;
    case ChatFormat::llama3_1:
      render_llama3(messages, options, true, out);
      break;
    case ChatFormat::gemma:
      render_gemma(messages, options, true, out);
      break;
    case ChatFormat::gemma2:
      render_gemma(messages, options, false, out);
      break;
    case ChatFormat::chatml:
      render_chatml(messages, options, "", false, out);
      break;
    case ChatFormat::qwen2:
      render_chatml(messages, options, qwen2_system, false, out);
      break;
    case ChatFormat::qwen2_5:
      render_chatml(messages, options, qwen2_5_system, false, out);
      break;
    case ChatFormat::qwen3:
      render_chatml(messages, options, "", true, out);
      break;
    case ChatFormat::mistral:
      render_mistral(messages, out);
      break;
  }
  return out.finish(options.parse_special_in_content, format_ == ChatFormat::plain);
}

}  // namespace steer
