#include "text/stock_templates.hpp"

#include <string_view>

namespace steer::text::detail {
namespace {

constexpr std::string_view plain =
    R"({% for m in messages %}{{ '' if loop.first else '\n\n' }}{{ m.content }}{% endfor %})";

/// Roles must take turns behind an optional system message; sets `first` to where they begin.
std::string taking_turns(std::string_view refusal) {
  return R"({%- set first = 1 if messages[0].role == 'system' else 0 -%}
{%- for m in messages[first:] -%}
  {%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{- raise_exception(')" +
         std::string(refusal) + R"(') -}}{%- endif -%}
{%- endfor -%})";
}
constexpr std::string_view alternate = "Conversation roles must alternate user/assistant/user/assistant/...";
constexpr std::string_view alternate_behind_system =
    "After the optional system message, conversation roles must alternate user/assistant/user/assistant/...";

constexpr std::string_view llama2 = R"({%- for m in messages[first:] -%}
  {%- if m.role == 'user' -%}
    {%- set text = m.content -%}
    {%- if first and loop.first -%}
      {%- set text = '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n' ~ text -%}
    {%- endif -%}
    {{- bos_token ~ '[INST] ' ~ text | trim ~ ' [/INST]' -}}
  {%- elif m.role == 'assistant' -%}
    {{- ' ' ~ m.content | trim ~ ' ' ~ eos_token -}}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view mistral = R"({{- bos_token -}}
{%- for m in messages[first:] -%}
  {%- if m.role == 'user' -%}
    {{- ' [INST] ' ~ (messages[0].content ~ '\n\n' if first and loop.first else '') ~ m.content ~ ' [/INST]' -}}
  {%- elif m.role == 'assistant' -%}
    {{- ' ' ~ m.content ~ eos_token -}}
  {%- else -%}
    {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') -}}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view llama3_turns = R"({%- for m in messages[first:] -%}
  {{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt -}})";
constexpr std::string_view llama3_begin = R"({%- set first = 0 -%}{{- bos_token -}})";
constexpr std::string_view llama3_1_begin = R"({%- set first = 1 if messages[0].role == 'system' else 0 -%}
{{- bos_token ~ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' -}}
{{- date_string | default('26 Jul 2024') ~ '\n\n' -}}
{{- messages[0].content | trim if first -}}
{{- '<|eot_id|>' -}})";

constexpr std::string_view gemma = R"({{- bos_token -}}
{%- for m in messages[first:] -%}
  {{- '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\n' -}}
  {{- messages[0].content ~ '\n\n' if first and loop.first -}}
  {{- m.content | trim ~ '<end_of_turn>\n' -}}
{%- endfor -%}
{{- '<start_of_turn>model\n' if add_generation_prompt -}})";
constexpr std::string_view no_system =
    R"({%- if messages[0].role == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%})";

constexpr std::string_view chatml = R"({%- for m in messages -%}
  {{- '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}})";
std::string default_system(std::string_view words) {
  return R"({{- '<|im_start|>system\n)" + std::string(words) + R"(<|im_end|>\n' if messages[0].role != 'system' -}})";
}

// Only answers behind the last question keep their thought.
constexpr std::string_view qwen3 = R"({%- set ns = namespace(question=messages | length - 1) -%}
{%- for m in messages -%}
  {%- if m.role == 'user' and not (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) -%}
    {%- set ns.question = loop.index0 -%}
  {%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
  {%- set text = m.content -%}
  {%- set thought = '' -%}
  {%- if m.role == 'assistant' and '</think>' in text -%}
    {%- set thought = text.split('</think>')[0].rstrip('\n').split('<think>')[-1].strip('\n') -%}
    {%- set text = text.split('</think>')[-1].lstrip('\n') -%}
  {%- endif -%}
  {{- '<|im_start|>' ~ m.role ~ '\n' -}}
  {%- if m.role == 'assistant' and loop.index0 > ns.question and (loop.last or thought) -%}
    {{- '<think>\n' ~ thought ~ '\n</think>\n\n' ~ text.lstrip('\n') -}}
  {%- else -%}
    {{- text -}}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\n' if add_generation_prompt -}})";

}  // namespace

std::string stock_template(ChatFormat format) {
  const auto joined = [](auto... parts) { return (std::string() + ... + std::string(parts)); };
  switch (format) {
    case ChatFormat::plain:
      return joined(plain);
    case ChatFormat::llama2:
      return joined(taking_turns(alternate), llama2);
    case ChatFormat::llama3:
      return joined(llama3_begin, llama3_turns);
    case ChatFormat::llama3_1:
      return joined(llama3_1_begin, llama3_turns);
    case ChatFormat::gemma:
      return joined(taking_turns(alternate), gemma);
    case ChatFormat::gemma2:
      return joined(no_system, taking_turns(alternate), gemma);
    case ChatFormat::chatml:
      return joined(chatml);
    case ChatFormat::qwen2:
      return joined(default_system("You are a helpful assistant."), chatml);
    case ChatFormat::qwen2_5:
      return joined(default_system("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), chatml);
    case ChatFormat::qwen3:
      return joined(qwen3);
    case ChatFormat::mistral:
      return joined(taking_turns(alternate_behind_system), mistral);
  }
  return joined(plain);
}

}  // namespace steer::text::detail
