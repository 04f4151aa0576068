#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/text/tokenizer.hpp>

namespace steer {

/// Who speaks.
enum class Role { system, user, assistant };

template <>
struct EnumTable<Role> {
  static constexpr std::string_view name = "role";
  static constexpr EnumEntry<Role> entries[] = {
      {Role::system, "system"}, {Role::user, "user"}, {Role::assistant, "assistant"}};
};

/// One turn of a conversation.
struct Message {
  Role role = Role::user;
  std::string content{};
  std::string reasoning{};  ///< what was thought before it; templates read it as `reasoning_content` or `thinking`
};

/// Formats to choose by name where a model's files bring no template, or one that cannot be run.
enum class ChatFormat {
  plain,     ///< contents joined by blank lines, nothing else: for base models
  llama2,    ///< `[INST] <<SYS>> ... [/INST]`
  llama3,    ///< `<|start_header_id|>role<|end_header_id|>`; Llama 3
  llama3_1,  ///< the same with the knowledge-cutoff and date lines of Llama 3.1 and later
  gemma,     ///< `<start_of_turn>`; Gemma 3: a system message opens the first user turn
  gemma2,    ///< the same; refuses system messages
  chatml,    ///< `<|im_start|>role`; many models
  qwen2,     ///< ChatML with Qwen 2's default system message
  qwen2_5,   ///< ChatML with Qwen 2.5's default system message
  qwen3,     ///< ChatML; earlier turns lose their `<think>` part, a final answer has one
  mistral,   ///< [INST] ... [/INST]; Mistral 7B Instruct v0.1 and v0.2
};

template <>
struct EnumTable<ChatFormat> {
  static constexpr std::string_view name = "chat format";
  static constexpr EnumEntry<ChatFormat> entries[] = {
      {ChatFormat::plain, "plain"},       {ChatFormat::llama2, "llama2"},  {ChatFormat::llama3, "llama3"},
      {ChatFormat::llama3_1, "llama3_1"}, {ChatFormat::gemma, "gemma"},    {ChatFormat::gemma2, "gemma2"},
      {ChatFormat::chatml, "chatml"},     {ChatFormat::qwen2, "qwen2"},    {ChatFormat::qwen2_5, "qwen2_5"},
      {ChatFormat::qwen3, "qwen3"},       {ChatFormat::mistral, "mistral"}};
};

/// How a conversation is rendered.
struct ChatOptions {
  bool generation_prompt = true;          ///< end with the header of the assistant's next message
  bool parse_special_in_content = false;  ///< true lets message text spell special tokens: prompt injection
  std::string date{};  ///< what templates read as `date_string`, e.g. "1 Dec 2024"; empty: not set, they have a default
  /// More that the template reads, a JSON object: R"({"enable_thinking": false})". Its text is trusted as the
  /// template's is.
  std::string variables = {};
  /// The time that `strftime_now` tells, without a zone. Never the clock, so that equal calls give equal prompts.
  std::chrono::sys_seconds now = std::chrono::sys_days(std::chrono::year(2024) / 7 / 26);
};

/// A conversation as text and ids, with where each part lies.
struct RenderedChat {
  struct Span {
    std::int64_t begin = 0, end = 0;  ///< token positions [begin, end)
  };
  std::string text;
  std::vector<std::int64_t> ids;  ///< with BOS as the format has it
  /// One per message: from the first to the last token that holds any of its content or reasoning (a token that joins
  /// them to the template's text counts); empty for empty content and for messages the format leaves out.
  std::vector<Span> messages;
  Span generation_prompt;  ///< the assistant header at the end; empty without one
};

/// Renders conversations in one model's chat format: its files' Jinja template, run by an interpreter that can reach
/// nothing outside the conversation and stops at limits of steps, memory and depth; or one of `ChatFormat`. An
/// immutable value, cheap to copy; all members may be called from several threads.
class ChatTemplate {
 public:
  /// The template of the tokenizer's own files, or `plain` where they have none.
  /// @throws Error(format | unsupported) for one that cannot be run, naming what it uses.
  explicit ChatTemplate(Tokenizer tokenizer);
  /// @param tokenizer  the model's own: ids are its.
  ChatTemplate(ChatFormat format, Tokenizer tokenizer);
  /// A template's source. @throws as above.
  ChatTemplate(std::string_view source, Tokenizer tokenizer);

  /// The template's source, for journals; that of a `ChatFormat` is steer's own.
  const std::string& source() const;
  /// Ids that end an assistant's message: what the format writes behind one, and what a GGUF file names as end of turn.
  const std::vector<std::int64_t>& end_of_turn() const;
  /// The text equals what jinja2 makes of the template, and the ids those of that text, with one exception: unless
  /// `parse_special_in_content`, special tokens spelled in a message stay ordinary text.
  /// @throws Error(argument) without messages, where the template refuses the conversation (roles out of order, ...),
  ///         with its words, and where it goes over a limit; Error(unsupported) for what the interpreter has not.
  RenderedChat render(const std::vector<Message>& messages, const ChatOptions& options = {}) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace steer
