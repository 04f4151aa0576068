#include "sae/simple_yaml.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;
using sae::detail::parse_simple_yaml;

TEST(SimpleYaml, ReadsWhatTrainingScriptsWrite) {
  const auto got = parse_simple_yaml(R"(# settings of a run
wandb_version: 1
d_model:
  desc: null
  value: 24
lr:
    value: 2e-4   # as found
tags:
  - a
  - nested: 1
    more: 2
name: 'x # y'
url: http://host:80/p
on: true
off: False
empty:
last: "z"
)",
                                     "f", "x");
  EXPECT_EQ(got, (json{{"wandb_version", 1},
                       {"d_model", {{"desc", nullptr}, {"value", 24}}},
                       {"lr", {{"value", 2e-4}}},
                       {"tags", got.at("tags")},
                       {"name", "x # y"},
                       {"url", "http://host:80/p"},
                       {"on", true},
                       {"off", false},
                       {"empty", nullptr},
                       {"last", "z"}}));
  EXPECT_STEER_ERROR(parse_simple_yaml("no key here", "f", "the file"), ErrorCode::format, "line 1");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += std::string(static_cast<std::size_t>(i), ' ') + "k:\n";
  EXPECT_STEER_ERROR(parse_simple_yaml(deep, "f", "the file"), ErrorCode::format, "nested");
}

}  // namespace
}  // namespace steer
