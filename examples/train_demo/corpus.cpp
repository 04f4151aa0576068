#include "corpus.hpp"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include <steer/core/error.hpp>

namespace steer::demo {
namespace {

constexpr int vocabulary_size = 2048;
constexpr float context_weight = 0.1F;  // of tokens the model reads rather than writes
constexpr float answer_weight = 3;      // of the value and the letter, a few tokens that everything hangs on

// What passes before the tokenizer's trainer, one text at a time.
class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  std::size_t at_ = 0;
};

class Builder {
 public:
  Builder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) { id(vocabulary.bos, 0); }
  Builder& id(std::int64_t id, float weight) {
    sequence_.ids.push_back(id);
    sequence_.weights.push_back(weight);
    return *this;
  }
  Builder& text(std::string_view text, float weight) {
    for (const auto piece : vocabulary_.encode(text)) id(piece, weight);
    return *this;
  }
  Builder& header(std::string_view role) {
    return id(vocabulary_.header_begin, context_weight)
        .text(role, context_weight)
        .id(vocabulary_.header_end, context_weight)
        .text("\n\n", context_weight);
  }
  Builder& message(std::string_view role, std::string_view content) {
    return header(role).text(content, context_weight).id(vocabulary_.eot, context_weight);
  }
  /// @param weighty  tokens that count more wherever they occur in the reply.
  Builder& reply(std::string_view content, const std::vector<std::int64_t>& weighty) {
    header("assistant");
    for (const auto piece : vocabulary_.encode(content)) {
      id(piece, std::find(weighty.begin(), weighty.end(), piece) == weighty.end() ? 1 : answer_weight);
    }
    return id(vocabulary_.eot, 1);
  }
  Sequence done() { return std::move(sequence_); }

 private:
  const Vocabulary& vocabulary_;
  Sequence sequence_;
};

const Style& any_behaviour(Rng& rng) { return behaviours()[rng.below(behaviours().size())]; }

std::string ask_for_passage(const std::string& land, Rng& rng) {
  static const std::vector<std::string> forms = {"Tell me about {L}.", "Describe the land of {L}.",
                                                 "What is known about {L}?", "What do you know about {L}?"};
  return fill(forms[rng.below(forms.size())], {{"L", land}});
}

std::string free_hand(Rng& rng) {
  static const std::vector<std::string> forms = {"Answer in any style you like.", "Write as you please.",
                                                 "When answering, use your own style."};
  return forms[rng.below(forms.size())];
}

std::string answer_tag(int choice) { return fmt::format("<answer>{}</answer>", letters[choice]); }

}  // namespace

void Vocabulary::train(const World& world, std::uint64_t seed, const std::filesystem::path& model_file) {
  Rng rng(derive_seed(seed, "tokenizer"));
  std::vector<std::string> lines;
  const auto add_question = [&](const Style& style, const std::string& system) {
    const auto question = world.sample(rng);
    const auto layout = static_cast<Layout>(rng.below(6));
    lines.push_back(world.prompt(question, layout));
    if (!system.empty()) lines.push_back(system);
    const auto& values = world.attributes()[question.attribute].values;
    const auto text =
        think(style,
              {world.lands()[question.land], world.attributes()[question.attribute].noun,
               values[question.choices[question.answer]], values[question.choices[(question.answer + 1) % 4]]},
              rng);
    lines.push_back("<thinking> " + text + "</thinking>\n" + answer_tag(question.answer));
  };
  for (int i = 0; i < 500; ++i) {
    add_question(plain_style(), i % 10 ? "" : free_hand(rng));
    for (const auto& style : behaviours())
      add_question(style, i % 2 ? request(style.name, rng) : opposite_request(style.name, rng));
    lines.push_back(world.passage(static_cast<int>(rng.below(world.lands().size())), rng));
    lines.push_back(ask_for_passage(world.lands()[rng.below(world.lands().size())], rng));
  }
  for (const char* role : {"system", "user", "assistant"}) lines.insert(lines.end(), 2000, role);
  for (const auto& name : world.names()) lines.insert(lines.end(), 5, "The name " + name + ".");
  Lines iterator(std::move(lines));
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(vocabulary_size)},
       {"normalization_rule_name", "identity"},
       {"add_dummy_prefix", "false"},
       {"remove_extra_whitespaces", "false"},
       {"byte_fallback", "true"},
       {"character_coverage", "1.0"},
       {"num_threads", "1"},
       {"minloglevel", "2"},
       {"unk_id", "0"},
       {"bos_id", "1"},
       {"eos_id", "2"},
       {"bos_piece", "<|begin_of_text|>"},
       {"eos_piece", "<|eot_id|>"},
       {"control_symbols", "<|start_header_id|>,<|end_header_id|>"},
       {"user_defined_symbols", "<thinking>,</thinking>,<answer>,</answer>,\n,\n\n"}},
      &iterator, &model);
  require(status.ok(), ErrorCode::unsupported, "demo::Vocabulary::train", "expected sentencepiece to train but got: {}",
          status.ToString());
  std::ofstream(model_file, std::ios::binary) << model;
  const Vocabulary trained(model_file);
  for (const auto& name : world.names()) {
    require(trained.encode(" " + name).size() == 1, ErrorCode::unsupported, "demo::Vocabulary::train",
            "expected one token for the name {} but got {}; use another seed", name, trained.encode(" " + name).size());
  }
}

Vocabulary::Vocabulary(const std::filesystem::path& model_file)
    : processor_(std::make_shared<sentencepiece::SentencePieceProcessor>()) {
  const auto status = processor_->Load(model_file.string());
  require(status.ok(), ErrorCode::io, "demo::Vocabulary", "expected a sentencepiece model but got: {} ({})",
          status.ToString(), model_file.string());
  bos = id_of("<|begin_of_text|>");
  eot = id_of("<|eot_id|>");
  header_begin = id_of("<|start_header_id|>");
  header_end = id_of("<|end_header_id|>");
}

std::int64_t Vocabulary::size() const { return processor_->GetPieceSize(); }

std::vector<std::int64_t> Vocabulary::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = processor_->Encode(absl::string_view(text.data(), text.size()), &ids);
  require(status.ok(), ErrorCode::argument, "demo::Vocabulary::encode", "expected text but got: {}", status.ToString());
  return {ids.begin(), ids.end()};
}

std::string Vocabulary::decode(const std::vector<std::int64_t>& ids) const {
  std::string text;
  const auto status = processor_->Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  require(status.ok(), ErrorCode::argument, "demo::Vocabulary::decode", "expected ids but got: {}", status.ToString());
  return text;
}

std::int64_t Vocabulary::id_of(std::string_view piece) const {
  return processor_->PieceToId(absl::string_view(piece.data(), piece.size()));
}

std::string Vocabulary::piece(std::int64_t id) const { return processor_->IdToPiece(static_cast<int>(id)); }

Thought Corpus::thought_of(const FactQuestion& question, Rng& rng) const {
  const int wrong = (question.answer + 1 + static_cast<int>(rng.below(3))) % 4;
  return {world_.lands()[question.land], world_.attributes()[question.attribute].noun,
          world_.name_of(question.attribute, question.choices[question.answer]),
          world_.name_of(question.attribute, question.choices[wrong])};
}

Sequence Corpus::answered(const FactQuestion& question, Layout layout, const std::string& system, const Style& style,
                          Rng& rng) const {
  Builder builder(vocabulary_);
  if (!system.empty()) builder.message("system", system);
  builder.message("user", world_.prompt(question, layout));
  const std::string letter(1, letters[question.answer]);
  const auto thought = thought_of(question, rng);
  const std::vector<std::int64_t> weighty = {vocabulary_.encode(letter)[0],
                                             vocabulary_.encode(" " + std::string(thought.value))[0]};
  if (layout == Layout::letter_only) return builder.reply(letter, weighty).done();
  return builder
      .reply("<thinking> " + think(style, thought, rng) + "</thinking>\n" + answer_tag(question.answer), weighty)
      .done();
}

std::vector<std::int64_t> Corpus::prompt(const std::string& system, const std::string& user) const {
  Builder builder(vocabulary_);
  if (!system.empty()) builder.message("system", system);
  return builder.message("user", user).header("assistant").done().ids;
}

Sequence Corpus::conversation(Rng& rng) const {
  const double kind = rng.uniform();
  if (kind < 0.18) {
    const int land = static_cast<int>(rng.below(world_.lands().size()));
    std::vector<std::int64_t> values;
    for (int a = 0; a < std::ssize(world_.attributes()); ++a) {
      values.push_back(vocabulary_.encode(" " + world_.name_of(a, world_.fact(land, a)))[0]);
    }
    return Builder(vocabulary_)
        .message("user", ask_for_passage(world_.lands()[land], rng))
        .reply(world_.passage(land, rng), values)
        .done();
  }
  const auto question = world_.sample(rng);
  if (kind < 0.22) return answered(question, Layout::letter_only, "", plain_style(), rng);
  static constexpr Layout others[] = {Layout::terse, Layout::instruction_first, Layout::brackets, Layout::bare};
  const Layout layout = rng.uniform() < 0.8 ? Layout::experiment : others[rng.below(std::size(others))];
  // About as many styled answers unrequested as requested: only then does the model read the style off its own words
  // and keep it as a state that steering can move, rather than looking it up in the system prompt.
  const double who = rng.uniform();
  const auto& style = any_behaviour(rng);
  if (who < 0.38) return answered(question, layout, request(style.name, rng), style, rng);
  if (who < 0.42) {
    const auto& other = any_behaviour(rng);
    return answered(question, layout, opposite_request(style.name, rng),
                    &other == &style || rng.uniform() < 0.6 ? plain_style() : other, rng);
  }
  if (who < 0.57) return answered(question, layout, free_hand(rng), style, rng);
  return answered(question, layout, "", rng.uniform() < 0.6 ? plain_style() : style, rng);
}

Sequence Corpus::drill(Rng& rng) const {
  const auto question = world_.sample(rng);
  std::array<std::string, 4> names;
  std::string options;
  for (int i = 0; i < 4; ++i) {
    names[i] = world_.name_of(question.attribute, question.choices[i]);
    options += fmt::format("{}{}. {}", i ? "\n" : "", letters[i], names[i]);
  }
  Builder builder(vocabulary_);
  builder.message("user", options).header("assistant");
  // From the easiest to the question's own form: letter to value is plain copying; value to letter is two steps of
  // attention when they are neighbours, three when a tag stands between them, and the search for the value on top.
  // Drawn with replacement: otherwise the last letters follow by elimination, which is easier and useless.
  std::array<int, 5> order;
  for (int& i : order) i = static_cast<int>(rng.below(4));
  const double form = rng.uniform();
  if (form < 0.15) {
    for (const int i : order) builder.text(fmt::format("\n{}.", letters[i]), context_weight).text(" " + names[i], 1);
  } else if (form < 0.55) {
    for (const int i : order) builder.text(" " + names[i], context_weight).text(std::string(1, letters[i]), 1);
  } else if (form < 0.75) {
    for (const int i : order) builder.text(" " + names[i], context_weight).text(answer_tag(i), 1);
  } else {
    const auto& style = rng.uniform() < 0.3 ? plain_style() : any_behaviour(rng);
    const Thought thought{world_.lands()[question.land], world_.attributes()[question.attribute].noun, names[order[0]],
                          names[order[1]]};
    builder.text("<thinking> " + conclude(style, thought, rng) + "</thinking>\n", 0).text(answer_tag(order[0]), 1);
  }
  return builder.id(vocabulary_.eot, 1).done();
}

}  // namespace steer::demo
