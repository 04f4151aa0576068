// Tokenizers and chat formats.
#include <steer/core/enum.hpp>
#include <steer/core/error.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

#include <nlohmann/json.hpp>

#include "bind.hpp"
#include "messages.hpp"

namespace steer::python {

std::vector<Message> messages_of(nb::handle conversation) {
  constexpr auto kWhere = "ChatTemplate.render";
  std::vector<Message> out;
  for (nb::handle item : conversation) {
    std::string role, content, reasoning;
    try {
      role = nb::cast<std::string>(item["role"]);
      content = nb::cast<std::string>(item["content"]);
      if (const nb::object thought = item.attr("get")("reasoning_content"); !thought.is_none())
        reasoning = nb::cast<std::string>(thought);
    } catch (const std::exception&) {
      fail(ErrorCode::argument, kWhere,
           "expected messages as {{\"role\": ..., \"content\": ...}}, both text, but got {}", nb::repr(item).c_str());
    }
    out.push_back({parse_enum<Role>(role, kWhere), content, reasoning});
  }
  return out;
}

ChatOptions chat_options(bool generation_prompt, const std::string& date, nb::handle variables) {
  ChatOptions options{.generation_prompt = generation_prompt, .date = date};
  if (!variables.is_none()) options.variables = to_json(variables).dump();
  return options;
}

void bind_text(nb::module_& m) {
  nb::class_<Tokenizer>(
      m, "Tokenizer",
      "Text to ids and back, exactly as the model's own tokenizer does it. Immutable; all members may "
      "be called from several threads.")
      .def_static("load", &Tokenizer::load, "path"_a,
                  "From a folder (tokenizer.json, else tokenizer.model), one of these files or a GGUF file.")
      .def(
          "encode",
          [](const Tokenizer& t, std::string_view text, bool add_special, bool parse_special) {
            return t.encode(text, {.add_special = add_special, .parse_special = parse_special});
          },
          "text"_a, nb::kw_only(), "add_special"_a = true, "parse_special"_a = true,
          "Ids of a text. parse_special=False keeps untrusted text from spelling special tokens.")
      .def(
          "encode_spans",
          [](const Tokenizer& t, std::string_view text, bool add_special, bool parse_special) {
            nb::list out;
            for (const auto& s : t.encode_spans(text, {.add_special = add_special, .parse_special = parse_special}))
              out.append(nb::make_tuple(s.id, s.begin, s.end));
            return out;
          },
          "text"_a, nb::kw_only(), "add_special"_a = true, "parse_special"_a = true,
          nb::sig("def encode_spans(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> "
                  "list[tuple[int, int, int]]"),
          "Ids with the bytes [begin, end) of the text each came from.")
      .def(
          "decode",
          [](const Tokenizer& t, const Ids& ids, bool skip_special) {
            return t.decode(ids, {.skip_special = skip_special});
          },
          "ids"_a, nb::kw_only(), "skip_special"_a = false, "Text of ids.")
      .def("token", &Tokenizer::token, "id"_a, "The vocabulary's spelling of an id.")
      .def("id_of", &Tokenizer::id_of, "token"_a, "The id of a token by its spelling in the vocabulary, or None.")
      .def("is_special", &Tokenizer::is_special, "id"_a, "Whether an id is a control token.")
      .def_prop_ro("vocab_size", &Tokenizer::vocab_size, "One more than the largest id.")
      .def_prop_ro("bos_token_id", &Tokenizer::bos, "Begin of sequence, where the files name one.")
      .def_prop_ro("eos_token_id", &Tokenizer::eos, "End of sequence, where the files name one.")
      .def_prop_ro("hash", &Tokenizer::hash, "Identifies the vocabulary and its rules.");

  nb::class_<ChatTemplate>(m, "ChatTemplate", "Renders conversations in one model's chat format. Immutable.")
      .def_prop_ro("source", &ChatTemplate::source, "The Jinja template.")
      .def_prop_ro("end_of_turn", &ChatTemplate::end_of_turn, "Ids that end an assistant's message.")
      .def(
          "render",
          [](const ChatTemplate& chat, nb::handle messages, bool generation_prompt, const std::string& date,
             nb::object variables) {
            const RenderedChat rendered =
                chat.render(messages_of(messages), chat_options(generation_prompt, date, variables));
            return nb::make_tuple(rendered.text, rendered.ids);
          },
          "messages"_a, nb::kw_only(), "generation_prompt"_a = true, "date"_a = "", "variables"_a = nb::none(),
          nb::sig(
              "def render(self, messages: Sequence[Mapping[str, str]], *, generation_prompt: bool = True, date: str "
              "= '', variables: Mapping[str, object] | None = None) -> tuple[str, list[int]]"),
          "A conversation of {\"role\", \"content\"} as text and ids; special tokens spelled in a message stay text.");
}

}  // namespace steer::python
