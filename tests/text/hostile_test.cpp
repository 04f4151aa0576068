// Files cut short, flipped and mistyped: each is read or ends in steer::Error.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/core/random.hpp>
#include <steer/text/tokenizer.hpp>

#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;
const std::filesystem::path data = std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/text";

class HostileTokenizers : public testing::Test {
 protected:
  // True if the bytes ended in an Error; a file that is still read must also encode and decode.
  bool refuses(const std::string& bytes, const std::string& name) {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    bool refused = false;
    try {
      const auto tokenizer = Tokenizer::load(dir_ / name);
      const auto ids = tokenizer.encode("The quick <turn> fox \xF0\x9F\x98\x80 \xFF 123");
      tokenizer.decode(ids);
    } catch (const Error&) {
      refused = true;
    }
    counter_.count(true);
    return refused;
  }
  test::TempDir dir_;
  test::CaseCounter counter_{"hostile"};
};

TEST_F(HostileTokenizers, Truncated) {
  for (const std::string name :
       {"byte_level.json", "characters.json", "bpe.model", "plain_bpe.model", "unigram.model"}) {
    const std::string bytes = test::read_file(data / name);
    for (std::size_t i = 0; i < 150; ++i) {
      const std::size_t size = i < 75 ? i : i * (bytes.size() - 1) / 150;
      const bool refused = refuses(bytes.substr(0, size), name);
      EXPECT_TRUE(refused || !name.ends_with(".json")) << name << " cut to " << size;
    }
  }
}

TEST_F(HostileTokenizers, FlippedBits) {
  Rng rng(11);
  for (const std::string name :
       {"byte_level.json", "characters.json", "bpe.model", "plain_bpe.model", "unigram.model"}) {
    const std::string bytes = test::read_file(data / name);
    for (int i = 0; i < 250; ++i) {
      std::string damaged = bytes;
      const std::size_t at = rng.below(i % 2 ? bytes.size() : std::min<std::size_t>(bytes.size(), 3000));
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << rng.below(8)));
      refuses(damaged, name);
    }
  }
}

TEST_F(HostileTokenizers, WrongTypes) {
  const json good = json::parse(test::read_file(data / "byte_level.json"));
  const json wrong[] = {nullptr,
                        true,
                        -1,
                        1e300,
                        "text",
                        json::array(),
                        json::object(),
                        json::array({json::array()}),
                        std::uint64_t(1) << 63};
  // Every place in the document, tables apart, gets every wrong value.
  json outline = good;
  outline["model"]["vocab"] = "table";
  outline["model"]["merges"] = "table";
  const json places = outline.flatten();
  for (const auto& [pointer, unused] : places.items())
    for (const json& value : wrong) {
      json damaged = good;
      damaged[json::json_pointer(pointer)] = value;
      refuses(damaged.dump(), "tokenizer.json");
    }
  for (const char* section : {"model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"})
    for (const json& value : wrong) {
      json damaged = good;
      damaged[section] = value;
      refuses(damaged.dump(), "tokenizer.json");
    }
}

TEST_F(HostileTokenizers, NamesWhatItDoesNotSupport) {
  const json good = json::parse(test::read_file(data / "byte_level.json"));
  const auto load = [&](const json& document) {
    std::ofstream(dir_ / "tokenizer.json") << document.dump();
    return Tokenizer::load(dir_ / "tokenizer.json");
  };
  const auto with = [&](const char* section, json value) {
    json document = good;
    document[section] = std::move(value);
    return document;
  };
  EXPECT_STEER_ERROR(load(with("normalizer", {{"type", "BertNormalizer"}})), ErrorCode::unsupported, "BertNormalizer");
  EXPECT_STEER_ERROR(load(with("pre_tokenizer", {{"type", "UnicodeScripts"}})), ErrorCode::unsupported,
                     "UnicodeScripts");
  EXPECT_STEER_ERROR(load(with("post_processor", {{"type", "Strange"}})), ErrorCode::unsupported, "Strange");
  EXPECT_STEER_ERROR(load(with("decoder", {{"type", "CTC"}})), ErrorCode::unsupported, "CTC");
  json unigram = good;
  unigram["model"]["type"] = "Unigram";
  EXPECT_STEER_ERROR(load(unigram), ErrorCode::unsupported, "Unigram");
  json far = good;
  far["model"]["vocab"]["x"] = 1 << 29;
  EXPECT_STEER_ERROR(load(far), ErrorCode::format, "large gaps");
  EXPECT_STEER_ERROR(load(with("normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}})),
                     ErrorCode::unsupported, "PCRE2");
  EXPECT_TRUE(refuses(std::string(1000, '['), "tokenizer.json"));
  EXPECT_TRUE(refuses("{\"a\":" + std::string(200000, '['), "tokenizer.json"));
  EXPECT_TRUE(refuses("", "tokenizer.json"));
  EXPECT_STEER_ERROR(Tokenizer::load(dir_ / "absent"), ErrorCode::io, "absent");
}

}  // namespace
}  // namespace steer
