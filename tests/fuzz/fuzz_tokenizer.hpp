#pragma once
// A tokenizer's file: what is read encodes any text to ids of its vocabulary and turns them back without harm.

#include <cstdlib>
#include <string_view>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/text/tokenizer.hpp>

#include "fuzz_file.hpp"

namespace steer::fuzz {

inline void use_tokenizer(std::string_view bytes) {
  read_or_refuse<Error>([&] {
    const auto tokenizer = Tokenizer::load(file_of(bytes));
    for (const std::string_view text : {"ab  c\n<s>1\xc3\xa9", "\xff \xe2\x96\x81x"}) {
      const auto ids = tokenizer.encode(text, {.parse_special = true});
      for (const auto id : ids)
        if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
      (void)tokenizer.decode(ids);
      for (const auto& span : tokenizer.encode_spans(text))
        if (span.begin > span.end || span.end > text.size()) std::abort();
    }
  });
}

}  // namespace steer::fuzz
