#include <steer/io/tensor_reader.hpp>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "builders.hpp"
#include "support.hpp"

namespace steer {
namespace {

using namespace test;

// The files come from torch.save; the values, through the safetensors package, from the same tensors
// (tests/data/io/make_fixtures.py).
TEST(Pytorch, ReadsAStateDict) {
  const auto truth = open_tensors(fixture("torch.safetensors"));
  for (const auto* name : {"state_dict.pt", "deflated.pt"}) {
    const auto reader = open_tensors(fixture(name));
    EXPECT_EQ(reader->format(), "pytorch");
    ASSERT_EQ(reader->tensors().size(), 2u);
    EXPECT_TRUE(at::equal(reader->read("weight"), truth->read("linear.weight")));
    EXPECT_TRUE(at::equal(reader->read("bias"), truth->read("linear.bias")));
    EXPECT_TRUE(at::equal(reader->read_rows("weight", 1, 3), truth->read_rows("linear.weight", 1, 3)));
    EXPECT_TRUE(at::equal(reader->raw("weight"), truth->raw("linear.weight")));
    EXPECT_TRUE(reader->metadata().empty());
  }
  const auto parameter = open_tensors(fixture("parameter.pt"));
  EXPECT_TRUE(at::equal(parameter->read("a"), at::ones({2, 3})));
  EXPECT_EQ(parameter->read("b").sizes(), (std::vector<std::int64_t>{0, 4}));
}

TEST(Pytorch, ReadsEveryType) {
  const auto truth = open_tensors(fixture("torch.safetensors"));
  const auto reader = open_tensors(fixture("dtypes.pt"));
  ASSERT_EQ(reader->tensors().size(), 10u);
  for (const auto& info : reader->tensors()) {
    EXPECT_TRUE(at::equal(reader->read(info.name).to(truth->info(info.name).dtype), truth->read(info.name)))
        << info.name;
    EXPECT_EQ(info.dtype, info.name == "bf16" ? at::kBFloat16 : truth->info(info.name).dtype) << info.name;
  }
  EXPECT_EQ(reader->info("bf16").storage, "BF16");
}

TEST(Pytorch, HonoursStridesOffsetsAndSharedStorages) {
  const auto reader = open_tensors(fixture("views.pt"));
  const auto base = at::arange(24, at::kFloat).view({4, 6});
  const std::pair<const char*, at::Tensor> expected[] = {
      {"whole", base},  {"transposed", base.t()}, {"columns", base.slice(1, 1, 6, 2)},
      {"row", base[2]}, {"last", base[3][5]},     {"storage", base.view({-1})}};
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(at::equal(reader->read(name), tensor)) << name;
    EXPECT_EQ(reader->raw(name).numel(), tensor.numel() * 4) << name;
    if (tensor.dim() == 0) continue;
    const auto end = tensor.size(0);
    EXPECT_TRUE(at::equal(reader->read_rows(name, end - 2, end), tensor.narrow(0, end - 2, 2))) << name;
    EXPECT_EQ(reader->read_rows(name, end, end).size(0), 0) << name;
  }
  EXPECT_EQ(reader->read("whole").const_data_ptr(), reader->read("transposed").const_data_ptr());
}

TEST(Pytorch, FlattensContainersAndKeepsPlainValues) {
  const auto reader = open_tensors(fixture("nested.pt"));
  std::vector<std::string> names;
  for (const auto& info : reader->tensors()) names.push_back(info.name);
  EXPECT_EQ(names, (std::vector<std::string>{"model.layers.0", "model.layers.1.w", "model.15"}));
  EXPECT_EQ(reader->read("model.15").sum().item<float>(), 14);
  EXPECT_EQ(reader->metadata(), (nlohmann::json{{"step", 3},
                                                {"big", 1ll << 40},
                                                {"negative", -5},
                                                {"rate", 0.5},
                                                {"name", "caf\u00e9"},
                                                {"flags", {true, nullptr, {1, 2}}},
                                                {"none", nlohmann::json::object()}}));
  const auto bare = open_tensors(fixture("bare.pt"));
  EXPECT_TRUE(at::equal(bare->read("tensor"), at::tensor({1.f, 2.f, 3.f})));
}

TEST(Pytorch, ReadsFilesFromBeforeZipArchives) {
  const auto zip = open_tensors(fixture("state_dict.pt")), legacy = open_tensors(fixture("legacy.pt"));
  ASSERT_EQ(legacy->tensors().size(), zip->tensors().size());
  for (const auto& info : zip->tensors()) {
    EXPECT_TRUE(at::equal(legacy->read(info.name), zip->read(info.name))) << info.name;
    EXPECT_TRUE(at::equal(legacy->read_rows(info.name, 1, 2), zip->read_rows(info.name, 1, 2))) << info.name;
    EXPECT_TRUE(at::equal(legacy->raw(info.name), zip->raw(info.name))) << info.name;
  }
  const auto whole = test::read_file(fixture("legacy.pt"));
  const TempDir dir;
  for (const auto* damage : {"", "more"}) {
    write_bytes(dir / "a", *damage ? whole + damage : whole.substr(0, whole.size() - 1));
    EXPECT_STEER_ERROR(open_tensors(dir / "a"), ErrorCode::format, *damage ? "after its last storage" : "cut off");
  }
}

TEST(Pytorch, RefusesWhatItWouldHaveToRun) {
  EXPECT_STEER_ERROR(open_tensors(fixture("module.pt")), ErrorCode::unsupported,
                     "\"torch.nn.modules.linear\".\"Linear\"");
  EXPECT_STEER_ERROR(open_tensors(fixture("expanded.pt")), ErrorCode::unsupported, "expanded");
  EXPECT_STEER_ERROR(open_tensors(fixture("protocol4.pt")), ErrorCode::unsupported, "protocol");
}

// Three values at the far end of a storage of more than 4 GiB, in a sparse file whose directory needs Zip64.
TEST(Pytorch, ReadsZip64BeyondFourGigabytes) {
  const TempDir dir;
  const std::int64_t count = (std::int64_t{5} << 30) / 4;
  const std::uint64_t size = static_cast<std::uint64_t>(count) * 4;
  const auto pickled = pickle("}(" + p_text("end") + p_tensor(p_storage("0", count), count - 3, {3}, {1}) +
                              p_text("all") + p_tensor(p_storage("0", count), 0, {count / 1024, 1024}, {1024, 1}) +
                              p_text("after") + p_tensor(p_storage("1", 1), 0, {}, {}) + "u");
  const auto local = [](const std::string& name) {
    return "PK\3\4" + le<std::uint16_t>(45) + std::string(12, '\0') + std::string(8, '\xff') +
           le<std::uint16_t>(static_cast<std::uint16_t>(name.size())) + le<std::uint16_t>(0) + name;
  };
  const auto central = [](const std::string& name, std::uint64_t bytes, std::uint64_t at) {
    return "PK\1\2" + le<std::uint32_t>(0x002d002d) + std::string(12, '\0') + std::string(8, '\xff') +
           le<std::uint16_t>(static_cast<std::uint16_t>(name.size())) + le<std::uint16_t>(28) + std::string(10, '\0') +
           std::string(4, '\xff') + name + le<std::uint16_t>(1) + le<std::uint16_t>(24) + le(bytes) + le(bytes) +
           le(at);
  };
  const std::string names[] = {"m/data.pkl", "m/data/0", "m/data/1"};
  const float values[] = {1, 2, 3}, after = 4;
  std::ofstream file(dir / "a", std::ios::binary);
  const auto put = [&](const std::string& bytes) {
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  put(local(names[0]) + pickled);
  const auto at0 = static_cast<std::uint64_t>(file.tellp());
  put(local(names[1]));
  file.seekp(static_cast<std::streamoff>(size - sizeof values), std::ios::cur);
  put({reinterpret_cast<const char*>(values), sizeof values});
  const auto at1 = static_cast<std::uint64_t>(file.tellp());
  put(local(names[2]) + le(after));
  const auto directory = static_cast<std::uint64_t>(file.tellp());
  const auto entries = central(names[0], pickled.size(), 0) + central(names[1], size, at0) + central(names[2], 4, at1);
  put(entries);
  const auto end64 = static_cast<std::uint64_t>(file.tellp());
  put("PK\6\6" + le<std::uint64_t>(44) + le<std::uint32_t>(0x002d002d) + std::string(8, '\0') + le<std::uint64_t>(3) +
      le<std::uint64_t>(3) + le<std::uint64_t>(entries.size()) + le(directory));
  put("PK\6\7" + le<std::uint32_t>(0) + le(end64) + le<std::uint32_t>(1));
  put("PK\5\6" + std::string(4, '\0') + std::string(12, '\xff') + std::string(2, '\0'));
  file.close();

  const auto reader = open_tensors(dir / "a");
  EXPECT_TRUE(at::equal(reader->read("end"), at::tensor({1.f, 2.f, 3.f})));
  EXPECT_EQ(reader->read_rows("all", count / 1024 - 1, count / 1024).sum().item<float>(), 6);
  EXPECT_EQ(reader->read("after").item<float>(), 4);
  EXPECT_EQ(reader->info("all").bytes, static_cast<std::int64_t>(size));
}

}  // namespace
}  // namespace steer
