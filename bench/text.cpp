// Tokenizer speed on MMLU test questions, one thread, and on the two texts that show quadratic merges.
//   bench/text TOKENIZER_FOLDER MMLU_TEST_FOLDER
// Prints one line of JSON: processor seconds of the questions, wall seconds of the two texts. bench/peers/text_pair.py
// runs it in turn with Hugging Face's tokenizers.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

namespace {

// Of this process's one thread on a processor, so that other programs' load counts as little as it can.
double processor_seconds(const auto& work) {
  const auto start = std::clock();
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

double wall_seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// One text a line of the CSV files, as the peer takes them.
std::vector<std::string> read_lines(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> lines;
  for (const auto& path : files) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

// Microseconds for ten messages in a template: the text alone is not offered, so ids and spans are included.
double chat_microseconds(const steer::Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  const steer::ChatTemplate chat = tokenizer.chat_template() ? steer::ChatTemplate(tokenizer)
                                                             : steer::ChatTemplate(steer::ChatFormat::qwen3, tokenizer);
  std::vector<steer::Message> messages;
  for (std::size_t i = 0; i < 10; ++i)
    messages.push_back({i % 2 ? steer::Role::assistant : steer::Role::user, texts[i % texts.size()]});
  std::vector<double> passes;
  for (int pass = 0; pass < 5; ++pass)
    passes.push_back(processor_seconds([&] {
      for (int i = 0; i < 200; ++i) chat.render(messages);
    }));
  return *std::min_element(passes.begin() + 1, passes.end()) / 200 * 1e6;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::fprintf(stderr, "usage: text TOKENIZER_FOLDER MMLU_TEST_FOLDER\n");
    return 2;
  }
  const auto tokenizer = steer::Tokenizer::load(argv[1]);
  const auto texts = read_lines(argv[2]);
  std::size_t bytes = 0, tokens = 0;
  for (const auto& text : texts) bytes += text.size();
  std::vector<double> passes;
  for (int pass = 0; pass < 4; ++pass) {  // the first warms up
    tokens = 0;
    passes.push_back(processor_seconds([&] {
      for (const auto& text : texts) tokens += tokenizer.encode(text, {.add_special = false}).size();
    }));
  }
  std::string english;
  for (std::size_t i = 0; english.size() < (1u << 20); ++i) english += texts[i % texts.size()] + " ";
  english.resize(1 << 20);
  const double run = wall_seconds([&] { tokenizer.encode(std::string(1 << 20, 'a')); });
  const double prose = wall_seconds([&] { tokenizer.encode(english); });
  std::printf(
      "{\"texts\": %zu, \"bytes\": %zu, \"tokens\": %zu, \"seconds\": %.4f, \"mb_per_s\": %.2f, \"1MB_of_a\": %.3f, "
      "\"1MB_of_english\": %.3f, \"chat_of_10_us\": %.1f}\n",
      texts.size(), bytes, tokens, *std::min_element(passes.begin() + 1, passes.end()),
      static_cast<double>(bytes) / 1e6 / *std::min_element(passes.begin() + 1, passes.end()), run, prose,
      chat_microseconds(tokenizer, texts));
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
