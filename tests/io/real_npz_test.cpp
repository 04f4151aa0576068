// Arrays of numpy as people bring them, with texts and objects beside them: STEER_REAL_DIR.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

std::string differs(const at::Tensor& got, const nlohmann::json& want) {
  if (want.is_array()) {
    if (got.dim() == 0 || got.size(0) != static_cast<std::int64_t>(want.size())) return "another shape";
    for (std::size_t i = 0; i < want.size(); ++i)
      if (auto why = differs(got[static_cast<std::int64_t>(i)], want[i]); !why.empty()) return why;
    return {};
  }
  if (got.dim() != 0) return "another shape";
  const double value = got.to(at::kDouble).item<double>();
  return value == want.get<double>() ? "" : format_text("{} instead of {}", value, want.get<double>());
}

TEST(RealNpz, NumbersAreReadAndTheRestIsPassedOver) {
  using Tensors = std::map<std::string, at::Tensor>;
  test::check_real_cases(
      "npz",
      [](const test::RealCase& c) {
        const auto reader = open_tensors(c.input());
        Tensors tensors;
        for (const auto& info : reader->tensors()) tensors[info.name] = reader->read(info.name);
        return tensors;
      },
      [](const Tensors& got, const nlohmann::json& right) -> std::string {
        if (right.contains("tensor"))
          return got.size() == 1 ? differs(got.begin()->second, right["tensor"]) : "several";
        if (got.size() != right["tensors"].size()) return format_text("{} tensors", got.size());
        for (const auto& [name, want] : right["tensors"].items()) {
          if (!got.contains(name)) return "no tensor " + name;
          if (auto why = differs(got.at(name), want); !why.empty()) return name + ": " + why;
        }
        return {};
      });
}

}  // namespace
}  // namespace steer
