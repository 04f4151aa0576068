#pragma once

#include <cstdint>
#include <filesystem>
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
  std::string content;
};

/// The chat formats steer renders by code of its own (no template language is run).
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
  std::string date;                       ///< llama3_1's date line, e.g. "1 Dec 2024"; empty: "26 Jul 2024"
};

/// A conversation as text and ids, with where each part lies.
struct RenderedChat {
  struct Span {
    std::int64_t begin = 0, end = 0;  ///< token positions [begin, end)
  };
  std::string text;
  std::vector<std::int64_t> ids;  ///< with BOS as the format has it
  /// One per message: the tokens that hold any of its content (a token that joins content to the template's text
  /// counts); empty for empty content and for messages the format leaves out.
  std::vector<Span> messages;
  Span generation_prompt;  ///< the assistant header at the end; empty without one
};

/// Renders conversations in one model's chat format. An immutable value; all members may be called from several
/// threads.
class ChatTemplate {
 public:
  /// @param tokenizer  the model's own: ids are its.
  explicit ChatTemplate(ChatFormat format, Tokenizer tokenizer);
  /// Recognises the format from a template's source (Tokenizer::chat_template).
  /// @throws Error(unsupported) for a template it does not know, naming the formats it knows.
  static ChatFormat recognise(std::string_view template_source);

  ChatFormat format() const { return format_; }
  /// The text equals what the model's own template gives, and the ids those of that text, with one exception: unless
  /// `parse_special_in_content`, special tokens spelled in a message stay ordinary text.
  /// @throws Error(argument) without messages, and where the model's own template refuses the conversation (roles out
  ///         of order, ...), with the template's words.
  RenderedChat render(const std::vector<Message>& messages, const ChatOptions& options = {}) const;

 private:
  ChatFormat format_;
  Tokenizer tokenizer_;
};

}  // namespace steer
