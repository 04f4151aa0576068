#include <steer/io/gguf_writer.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

#include <sys/stat.h>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "builders.hpp"
#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::read_file;
using test::safetensors_bytes;
using test::TempDir;
using test::write_bytes;

// Written byte by byte from the format's description, not by our writer.
TEST(Safetensors, ReadsAFileWrittenByHand) {
  const TempDir dir;
  const float values[] = {1, 2, 3, 4, 5, 6};
  std::string data(reinterpret_cast<const char*>(values), sizeof values);
  data += std::string("\x80\x3f", 2);  // 1.0 as BF16
  write_bytes(
      dir / "a",
      safetensors_bytes(
          R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},)"
          R"("s":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"e":{"dtype":"I64","shape":[0,4],"data_offsets":[24,24]}})",
          data));
  const auto reader = open_tensors(dir / "a");
  EXPECT_EQ(reader->format(), "safetensors");
  EXPECT_EQ(reader->metadata()["format"], "pt");
  ASSERT_EQ(reader->tensors().size(), 3u);
  EXPECT_EQ(reader->tensors()[0].name, "w");
  EXPECT_EQ(reader->info("w").bytes, 24);
  EXPECT_TRUE(at::equal(reader->read("w"), at::arange(1, 7, at::kFloat).view({3, 2})));
  EXPECT_TRUE(at::equal(reader->read_rows("w", 1, 2), at::tensor({3.f, 4.f}).view({1, 2})));
  EXPECT_EQ(reader->read_rows("w", 3, 3).sizes(), (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(reader->read("s").dim(), 0);
  EXPECT_EQ(reader->read("s").item<float>(), 1.f);
  EXPECT_EQ(reader->read("e").sizes(), (std::vector<std::int64_t>{0, 4}));
  EXPECT_EQ(reader->raw("s").numel(), 2);
  EXPECT_STEER_ERROR(reader->read("x"), ErrorCode::format, "nearest names");
  EXPECT_STEER_ERROR(reader->read_rows("w", 2, 4), ErrorCode::argument, "[0, 3)");
  EXPECT_STEER_ERROR(reader->read_rows("w", -1, 1), ErrorCode::argument, "[0, 3)");
  EXPECT_STEER_ERROR(reader->read_rows("s", 0, 1), ErrorCode::argument, "\"s\"");
}

TEST(Safetensors, ReadsDataThatAreNotAligned) {
  const TempDir dir;
  const double value = 2.5;
  const std::string bytes(reinterpret_cast<const char*>(&value), 8);
  const std::string header = R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})";
  for (int pad = 0; pad < 8; ++pad) {
    write_bytes(dir / "a", safetensors_bytes(header + std::string(static_cast<std::size_t>(pad), ' '), bytes));
    EXPECT_EQ(open_tensors(dir / "a")->read("d").item<double>(), value);
  }
}

TEST(Safetensors, RoundTripsEveryTypeOfLibtorch) {
  const TempDir dir;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto bits = at::randint(0, 256, {5, 64}, at::kByte);
  for (const auto dtype : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kBFloat16, at::kFloat,
                           at::kDouble, at::kUInt16, at::kUInt32, at::kUInt64, at::kComplexFloat, at::kFloat8_e4m3fn,
                           at::kFloat8_e5m2, at::kFloat8_e4m3fnuz, at::kFloat8_e5m2fnuz, at::kFloat8_e8m0fnu})
    tensors.emplace_back(c10::toString(dtype), bits.view(dtype));
  tensors.emplace_back("bool", bits.gt(127));
  tensors.emplace_back("scalar", at::scalar_tensor(3.5));
  tensors.emplace_back("transposed", at::arange(12, at::kFloat).view({3, 4}).t());
  save_safetensors(dir / "a", tensors, {{"k", "v"}});
  const auto reader = open_tensors(dir / "a");
  ASSERT_EQ(reader->tensors().size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    EXPECT_EQ(reader->tensors()[i].name, name);
    const auto read = reader->read(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(read.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(reader->raw(name), tensor.contiguous().view({-1}).view(at::kByte))) << name;
  }
  EXPECT_EQ(reader->metadata(), (nlohmann::json{{"k", "v"}}));
}

TEST(Safetensors, IsZeroCopyAndOutlivesItsReader) {
  const TempDir dir;
  save_safetensors(dir / "a", {{"w", at::ones({1000})}});
  auto reader = open_tensors(dir / "a");
  const auto first = reader->read("w"), second = reader->read("w"), rows = reader->read_rows("w", 10, 20);
  EXPECT_EQ(first.const_data_ptr(), second.const_data_ptr());
  EXPECT_EQ(static_cast<const float*>(first.const_data_ptr()) + 10, rows.const_data_ptr());
  reader.reset();
  std::filesystem::remove(dir / "a");
  EXPECT_EQ(first.sum().item<float>(), 1000.f);
}

TEST(Safetensors, OpensSparseFileOfManyGigabytesWithoutReadingIt) {
  const TempDir dir;
  const std::int64_t rows = std::int64_t{9} << 20;  // 9 Mi rows of 1 KiB
  const std::string header = format_text(
      R"({{"big":{{"dtype":"F32","shape":[{},256],"data_offsets":[0,{}]}},"last":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}}}})",
      rows, rows * 1024, rows * 1024, rows * 1024 + 1);
  const auto bytes = safetensors_bytes(header, "");
  write_bytes(dir / "a", bytes);
  std::filesystem::resize_file(dir / "a", bytes.size() + static_cast<std::uint64_t>(rows) * 1024 + 1);
  const auto reader = open_tensors(dir / "a");
  EXPECT_EQ(reader->read("last").item<int>(), 0);
  EXPECT_EQ(reader->read_rows("big", rows - 1, rows).abs().sum().item<float>(), 0.f);
  EXPECT_EQ(reader->info("big").bytes, rows * 1024);
}

TEST(Safetensors, ReadsShards) {
  const TempDir dir;
  save_safetensors(dir / "model-00001-of-00002.safetensors", {{"a", at::ones({2})}, {"not_in_index", at::ones({2})}},
                   {{"format", "pt"}});
  save_safetensors(dir / "model-00002-of-00002.safetensors", {{"b", at::full({3}, 7)}});
  const auto index = dir / "model.safetensors.index.json";
  write_bytes(
      index,
      R"({"metadata":{"total_size":20, "x": [1.5, null, {}]},"weight_map":{"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}})");
  for (const auto& path : {index, dir.path()}) {
    const auto reader = open_tensors(path);
    EXPECT_EQ(reader->tensors().size(), 2u);
    EXPECT_EQ(reader->read("a").sum().item<float>(), 2);
    EXPECT_EQ(reader->read("b").sum().item<float>(), 21);
    EXPECT_EQ(reader->metadata()["format"], "pt");
  }
  write_bytes(index, R"({"weight_map":{"c":"model-00001-of-00002.safetensors"}})");
  EXPECT_STEER_ERROR(open_tensors(index), ErrorCode::format, "\"c\"");
  write_bytes(index, R"({"weight_map":{"a":"../model-00001-of-00002.safetensors"}})");
  EXPECT_STEER_ERROR(open_tensors(index), ErrorCode::format, "outside");
  write_bytes(index, R"({"weight_map":{"a":"missing"}})");
  EXPECT_STEER_ERROR(open_tensors(index), ErrorCode::io, "missing");
  write_bytes(index, R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"x","c":"y"}})");
  EXPECT_STEER_ERROR(open_tensors(index), ErrorCode::io, "expected the 3 files that the index names but got 1");
  write_bytes(index, R"({"other":{}})");
  EXPECT_STEER_ERROR(open_tensors(index), ErrorCode::format, "weight_map");
}

TEST(Safetensors, NamesTypesItCannotDecode) {
  const TempDir dir;
  write_bytes(dir / "a", safetensors_bytes(R"({"q":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}})", "ab"));
  const auto reader = open_tensors(dir / "a");
  EXPECT_STEER_ERROR(reader->read("q"), ErrorCode::unsupported, "F4");
  EXPECT_EQ(reader->raw("q").numel(), 2);
}

TEST(Safetensors, RefusesBoolsThatAreNone) {
  const TempDir dir;
  write_bytes(dir / "a", safetensors_bytes(R"({"q":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\1\2"));
  EXPECT_STEER_ERROR(open_tensors(dir / "a")->read("q"), ErrorCode::format, "BOOL");
}

TEST(SafetensorsWriter, WritesRowsAndLeavesNothingBehind) {
  const TempDir dir;
  const auto path = dir / "a.safetensors";
  write_bytes(path, "old");
  {
    SafetensorsWriter writer(path, {{"half", at::kHalf, {1}}, {"w", at::kFloat, {4, 2}}});
    writer.append_rows("w", at::ones({3, 2}));
    writer.append_rows("w", at::zeros({1, 2}));
    EXPECT_STEER_ERROR(writer.append_rows("w", at::zeros({1, 2})), ErrorCode::shape, "0 bytes left");
    EXPECT_STEER_ERROR(writer.write("w", at::zeros({4, 2})), ErrorCode::argument, "once");
    EXPECT_STEER_ERROR(writer.write("v", at::zeros({4, 2})), ErrorCode::argument, "declared");
    EXPECT_STEER_ERROR(writer.write("half", at::zeros({1})), ErrorCode::argument, "dtype Half");
    EXPECT_STEER_ERROR(writer.write("half", at::zeros({2}, at::kHalf)), ErrorCode::shape, "[1]");
    EXPECT_STEER_ERROR(writer.finish(), ErrorCode::argument, "\"half\"");
    EXPECT_EQ(test::read_file(path), "old");
  }
  EXPECT_EQ(test::read_file(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
  SafetensorsWriter writer(path, {{"half", at::kHalf, {1}}, {"w", at::kFloat, {4, 2}}});
  writer.write("w", at::ones({4, 2}));
  writer.write("half", at::ones({1}, at::kHalf));
  writer.finish();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
  const auto reader = open_tensors(path);
  EXPECT_EQ(reader->tensors()[0].name, "half");
  EXPECT_EQ(reader->read("w").sum().item<float>(), 8);
}

TEST(SafetensorsWriter, RefusesWhatNoReaderCouldRead) {
  const TempDir dir;
  EXPECT_STEER_ERROR(save_safetensors(dir / "a", {{"x", at::ones({1})}, {"x", at::ones({1})}}), ErrorCode::argument,
                     "once");
  EXPECT_STEER_ERROR(save_safetensors(dir / "a", {{"__metadata__", at::ones({1})}}), ErrorCode::argument,
                     "__metadata__");
  EXPECT_STEER_ERROR(save_safetensors(dir / "a", {{"\xff", at::ones({1})}}), ErrorCode::argument, "UTF-8");
  EXPECT_STEER_ERROR(save_safetensors(dir / "a", {{"c", at::ones({1}, at::kComplexDouble)}}), ErrorCode::argument,
                     "ComplexDouble");
  EXPECT_STEER_ERROR(save_safetensors(dir / "no" / "a", {{"x", at::ones({1})}}), ErrorCode::io, "No such file");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(TensorReader, InMemory) {
  const auto reader = tensors_in_memory({{"a", at::arange(6).view({3, 2})}, {"s", at::scalar_tensor(1)}}, {{"key", 3}});
  EXPECT_EQ(reader->format(), "memory");
  EXPECT_EQ(reader->metadata()["key"], 3);
  EXPECT_EQ(reader->info("a").storage, "I64");
  EXPECT_TRUE(at::equal(reader->read_rows("a", 1, 3), at::arange(2, 6).view({2, 2})));
  EXPECT_EQ(reader->raw("a").numel(), 48);
  EXPECT_EQ(reader->read("s").dim(), 0);
  EXPECT_FALSE(reader->contains("b"));
  EXPECT_STEER_ERROR(tensors_in_memory({{"a", at::ones({1})}, {"a", at::ones({1})}}, {}), ErrorCode::format, "twice");
  EXPECT_TRUE(tensors_in_memory({}, {})->metadata().is_object());
}

TEST(TensorReader, OpensOnlyWhatItKnows) {
  const TempDir dir;
  write_bytes(dir / "a", "hello");
  write_bytes(dir / "empty", "");
  EXPECT_STEER_ERROR(open_tensors(dir / "a"), ErrorCode::unsupported, "hello");
  EXPECT_STEER_ERROR(open_tensors(dir / "empty"), ErrorCode::format, "empty file");
  EXPECT_STEER_ERROR(open_tensors(dir / "none"), ErrorCode::io, "none");
  EXPECT_STEER_ERROR(open_tensors(dir.path()), ErrorCode::io, "model.safetensors");
  EXPECT_STEER_ERROR(open_tensors("/dev/null"), ErrorCode::io, "regular");
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_STEER_ERROR(open_tensors(dir / "pipe"), ErrorCode::io, "regular");
}

TEST(TensorReader, SaysWhatToDoAboutAFileThatIsNotWeights) {
  const TempDir dir;
  const auto refusal = [&](std::string_view bytes) {
    write_bytes(dir / "a", bytes);
    try {
      open_tensors(dir / "a");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), HasSubstr("git lfs pull"));
  EXPECT_THAT(refusal("<!DOCTYPE html><html>sign in</html>"), HasSubstr("download it again"));
  EXPECT_THAT(refusal("\x1f\x8b\x08"), HasSubstr("unpack it first"));
  EXPECT_THAT(refusal("\x80\x04\x95"), HasSubstr("save it again"));
  EXPECT_THAT(refusal("PK\3\4 and no more"), HasSubstr("cut off: download or save it again"));
  EXPECT_THAT(refusal(R"({"model_type":"llama"})"), HasSubstr("name the weight file or its folder"));

  save_safetensors(dir / "whole", {{"w", at::zeros({100})}});
  std::string whole = read_file(dir / "whole");
  EXPECT_THAT(refusal(whole.substr(0, 20)), HasSubstr("cut off or damaged: download or save it again"));
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 4)),
              HasSubstr("expected 400 bytes of tensor data, as the header says, but got 396"));

  save_gguf(dir / "gguf", nlohmann::json::object(), {{"w", at::zeros({100})}});
  whole = read_file(dir / "gguf");
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 32)), HasSubstr("the file is cut off: download it again"));

  std::filesystem::create_directory(dir / "folder");
  EXPECT_STEER_ERROR(open_tensors(dir / "folder"), ErrorCode::io, "holds no weights");
  write_bytes(dir / "folder" / "b.gguf", "");
  write_bytes(dir / "folder" / "a.npz", "");
  EXPECT_STEER_ERROR(open_tensors(dir / "folder"), ErrorCode::io, "\"a.npz\", \"b.gguf\"");
}

}  // namespace
}  // namespace steer
