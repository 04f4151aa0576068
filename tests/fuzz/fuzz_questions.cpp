// Questions as people have them: what is read has its answer among its choices, and is written so that it is read
// again.
#include <cstdlib>
#include <filesystem>
#include <string>

#include <steer/core/error.hpp>
#include <steer/eval/questions.hpp>

#include "fuzz_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const auto saved = std::filesystem::path("/dev/shm") / ("fuzz_questions." + std::to_string(::getpid()));
  steer::fuzz::read_or_refuse<steer::Error>([&] {
    const auto questions = steer::load_questions(steer::fuzz::file_of(steer::fuzz::text_of(data, size)));
    for (const auto& question : questions)
      if (question.answer < -1 || question.answer >= std::ssize(question.choices) || question.choices.size() > 26)
        std::abort();
    steer::save_questions(questions, saved);
    if (steer::load_questions(saved) != questions) std::abort();
  });
  return 0;
}
