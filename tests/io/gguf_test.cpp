#include <steer/io/gguf_writer.hpp>
#include <steer/io/tensor_reader.hpp>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "builders.hpp"
#include "core/isa.hpp"
#include "io/dequantize.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::TempDir;

// Truth from the gguf Python package: see tests/data/io/make_fixtures.py.
TEST(GgufReader, DequantisesEveryTypeAsTheGgufPackage) {
  const auto reader = open_tensors(test::fixture("types.gguf"));
  const auto truth = open_tensors(test::fixture("types.safetensors"));
  int quantised = 0;
  for (const auto& info : truth->tensors()) {
    const auto expected = truth->read(info.name);
    const auto read = reader->read(info.name);
    ASSERT_EQ(read.sizes(), expected.sizes()) << info.name;
    EXPECT_TRUE(at::equal(read.to(expected.scalar_type()), expected)) << info.name;
    const auto rows = expected.size(0);
    EXPECT_TRUE(at::equal(reader->read_rows(info.name, rows - 1, rows).to(expected.scalar_type()),
                          expected.narrow(0, rows - 1, 1)))
        << info.name;
    quantised += reader->info(info.name).storage[0] == 'Q' || reader->info(info.name).storage[0] == 'I';
  }
  EXPECT_GE(quantised, 13);
  // Rows of a one-dimensional tensor are values; their range need not end where blocks do.
  EXPECT_TRUE(at::equal(reader->read_rows("one_dimension", 30, 70), truth->read_rows("one_dimension", 30, 70)));
  EXPECT_EQ(reader->read_rows("one_dimension", 33, 33).numel(), 0);
  EXPECT_EQ(reader->raw("Q4_K").numel(), 3 * 2 * 144);
  EXPECT_STEER_ERROR(reader->read("unread"), ErrorCode::unsupported, "IQ2_XXS");
  EXPECT_EQ(reader->raw("unread").numel(), 66);
}

TEST(GgufReader, EveryInstructionSetGivesTheSameBits) {
  using core::detail::Isa;
  const auto kernel_on = [](Isa isa, unsigned type) {
    core::detail::set_isa_for_testing(isa);
    return io::detail::dequantize_kernels().of(type);
  };
  const Isa before = core::detail::isa_in_use();
  const auto reader = open_tensors(test::fixture("types.gguf"));
  for (const auto& info : reader->tensors()) {
    const auto& type = *io::detail::find_ggml_type(info.storage);
    const auto portable = kernel_on(Isa::portable, type.id);
    const auto raw = reader->raw(info.name);
    const auto blocks = info.bytes / type.block_bytes;
    std::vector<float> a(static_cast<std::size_t>(blocks * type.block_values)), b(a.size());
    if (portable) portable(static_cast<const std::byte*>(raw.const_data_ptr()), blocks, a.data());
    for (const Isa isa : {Isa::avx2, Isa::avx512}) {
      const auto kernel = kernel_on(isa, type.id);  // the best one where there is none such
      ASSERT_EQ(portable == nullptr, kernel == nullptr);
      if (kernel) kernel(static_cast<const std::byte*>(raw.const_data_ptr()), blocks, b.data());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << info.name;
    }
  }
  core::detail::set_isa_for_testing(before);
}

TEST(GgufReader, ReadsMetadataOfEveryType) {
  const auto reader = open_tensors(test::fixture("types.gguf"));
  const auto& metadata = reader->metadata();
  const nlohmann::json expected = {{"general.architecture", "test"},
                                   {"test.uint8", 200},
                                   {"test.int8", -100},
                                   {"test.uint16", 60000},
                                   {"test.int16", -30000},
                                   {"test.uint32", 4000000000u},
                                   {"test.int32", -2000000000},
                                   {"test.uint64", 9223372036854775809u},
                                   {"test.int64", -4611686018427387904},
                                   {"test.float32", 0.1f},
                                   {"test.float64", 0.1},
                                   {"test.bool", true},
                                   {"test.string", "caf\u00e9"},
                                   {"test.words", {"a", "\u2581b", ""}},
                                   {"test.numbers", {1, -2, 3}},
                                   {"test.floats", {0.5, 1.5}}};
  for (const auto& [key, value] : expected.items()) EXPECT_EQ(metadata.value(key, nlohmann::json()), value) << key;
}

TEST(GgufWriter, RoundTrips) {
  const TempDir dir;
  const nlohmann::json metadata = {{"text", "caf\u00e9"},
                                   {"yes", true},
                                   {"small", 7},
                                   {"negative", -7},
                                   {"large", 1ull << 63},
                                   {"half", 0.5},
                                   {"list", {1, 2, -3}},
                                   {"words", {"a", "bc"}},
                                   {"fractions", {1, 2.5}},
                                   {"least", INT64_MIN},
                                   {"none", nlohmann::json::array()}};
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"w", at::randn({3, 5})},
                                                             {"t", at::randn({4, 6}).t()},
                                                             {"b", at::randn({7}).to(at::kBFloat16)},
                                                             {"i", at::arange(9).view({1, 3, 3})},
                                                             {"s", at::scalar_tensor(2.0)}};
  save_gguf(dir / "a", metadata, tensors);
  const auto reader = open_tensors(dir / "a");
  EXPECT_EQ(reader->format(), "gguf");
  EXPECT_EQ(reader->metadata(), metadata);
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(at::equal(reader->read(name), tensor)) << name;
  EXPECT_TRUE(at::equal(reader->read_rows("w", 1, 2), tensors[0].second.narrow(0, 1, 1)));
  EXPECT_STEER_ERROR(save_gguf(dir / "b", {{"o", nlohmann::json::object()}}, {}), ErrorCode::argument, "\"o\"");
  EXPECT_STEER_ERROR(save_gguf(dir / "b", {{"o", {1, "a"}}}, {}), ErrorCode::argument, "one kind");
  EXPECT_STEER_ERROR(save_gguf(dir / "b", {}, {{"x", at::ones({1}, at::kBool)}}), ErrorCode::argument, "Bool");
  EXPECT_STEER_ERROR(save_gguf(dir / "b", {}, {{"x", at::ones({1})}, {"x", at::ones({1})}}), ErrorCode::argument,
                     "\"x\"");
  EXPECT_FALSE(std::filesystem::exists(dir / "b"));
}

TEST(GgufWriter, ControlVectorRoundTrips) {
  const TempDir dir;
  ControlVector vector{"gemma3", {{1, at::randn({8})}, {17, at::randn({8})}}};
  save_control_vector(dir / "a.gguf", vector);
  const auto read = load_control_vector(dir / "a.gguf");
  EXPECT_EQ(read.model_hint, "gemma3");
  ASSERT_EQ(read.directions.size(), 2u);
  EXPECT_TRUE(at::equal(read.directions.at(17), vector.directions.at(17)));
  EXPECT_STEER_ERROR(save_control_vector(dir / "b", {"", {{0, at::ones({2})}}}), ErrorCode::argument, "layer 0");
  EXPECT_STEER_ERROR(save_control_vector(dir / "b", {"", {{1, at::ones({2})}, {2, at::ones({3})}}}), ErrorCode::shape,
                     "layer 2");
  EXPECT_STEER_ERROR(save_control_vector(dir / "b", {}), ErrorCode::argument, "none");
  save_gguf(dir / "c", {}, {{"direction.x", at::ones({2})}});
  EXPECT_STEER_ERROR(load_control_vector(dir / "c"), ErrorCode::format, "direction.x");
}

}  // namespace
}  // namespace steer
