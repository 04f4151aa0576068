#include <steer/io/tensor_reader.hpp>

#include <ATen/ATen.h>

#include "builders.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::fixture;
using test::TempDir;
using test::write_bytes;

// Truth: what numpy's arrays hold, written by the safetensors package (tests/data/io/make_fixtures.py).
TEST(Npz, ReadsWhatNumpyWrites) {
  const auto truth = open_tensors(fixture("arrays.safetensors"));
  for (const auto* name : {"stored.npz", "deflated.npz"}) {
    const auto reader = open_tensors(fixture(name));
    EXPECT_EQ(reader->format(), "npz");
    EXPECT_EQ(reader->tensors().size(), truth->tensors().size() + 3);
    for (const auto& info : truth->tensors()) {
      const auto expected = truth->read(info.name), read = reader->read(info.name);
      EXPECT_EQ(read.scalar_type(), expected.scalar_type()) << info.name;
      EXPECT_TRUE(at::equal(read, expected)) << name << " " << info.name;
      EXPECT_TRUE(at::equal(reader->raw(info.name), truth->raw(info.name))) << name << " " << info.name;
    }
    EXPECT_EQ(reader->read("c16").item<c10::complex<double>>(), (c10::complex<double>(1, 2)));
    for (const auto& [fortran, plain] : {std::pair{"fortran", "f4"}, std::pair{"fortran3", "f8"}}) {
      const auto expected = truth->read(plain);
      EXPECT_TRUE(at::equal(reader->read(fortran), expected));
      EXPECT_TRUE(at::equal(reader->read_rows(fortran, 1, 2), expected.narrow(0, 1, 1)));
      EXPECT_TRUE(at::equal(reader->raw(fortran), truth->raw(plain)));
    }
    EXPECT_TRUE(at::equal(reader->read_rows("f4", 1, 3), truth->read_rows("f4", 1, 3)));
    EXPECT_EQ(reader->read_rows("f4", 4, 4).numel(), 0);
    EXPECT_EQ(reader->info("f4").storage, "<f4");
  }
}

TEST(Npy, ReadsEveryVersionAndOrder) {
  const auto expected = open_tensors(fixture("arrays.safetensors"))->read("f4");
  for (const auto* name : {"v1", "v2", "v3", "fortran"}) {
    const auto reader = open_tensors(fixture(std::string(name) + ".npy"));
    EXPECT_EQ(reader->format(), "npy");
    EXPECT_TRUE(at::equal(reader->read(name), expected)) << name;
  }
}

TEST(Npy, NamesWhatItDoesNotRead) {
  EXPECT_STEER_ERROR(open_tensors(fixture("big_endian.npy")), ErrorCode::unsupported, ">f4");
  EXPECT_STEER_ERROR(open_tensors(fixture("structured.npy")), ErrorCode::unsupported, "structured");
  EXPECT_STEER_ERROR(open_tensors(fixture("object.npy")), ErrorCode::unsupported, "|O");
  const TempDir dir;
  const auto npy = [](const std::string& header, const std::string& data) {
    return "\x93NUMPY\1" + std::string(1, '\0') + test::le<std::uint16_t>(static_cast<std::uint16_t>(header.size())) +
           header + data;
  };
  const auto open = [&](const std::string& header, const std::string& data) {
    write_bytes(dir / "a", npy(header, data));
    return open_tensors(dir / "a");
  };
  EXPECT_EQ(
      open("{\"shape\": (2L,), 'fortran_order': False, 'descr': '<f4'}\n", std::string(8, '\0'))->read("a").numel(), 2);
  EXPECT_STEER_ERROR(open("{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}", std::string(7, '\0')),
                     ErrorCode::format, "8 bytes");
  EXPECT_STEER_ERROR(open("{'shape': (-2,), 'fortran_order': False, 'descr': '<f4'}", ""), ErrorCode::format, "[-2]");
  EXPECT_STEER_ERROR(open("{'shape': (4294967296,4294967296), 'fortran_order': False, 'descr': '<f4'}", ""),
                     ErrorCode::format, "63 bits");
  EXPECT_STEER_ERROR(open("{'shape': (99999999999999999999,), 'fortran_order': False, 'descr': '<f4'}", ""),
                     ErrorCode::format, "header");
  EXPECT_STEER_ERROR(open("{'shape': (2,), 'shape': (2,), 'descr': '<f4'}", ""), ErrorCode::format, "header");
  EXPECT_STEER_ERROR(open("__import__('os')", ""), ErrorCode::format, "header");
}

TEST(Zip, ChecksTheSumOfUnpackedData) {
  const TempDir dir;
  const auto npy = test::read_file(fixture("v1.npy"));
  auto file = test::zip_bytes({{"a.npy", npy, true}});
  const auto crc = file.find("PK\1\2") + 16;
  file[crc] = static_cast<char>(file[crc] ^ 1);
  write_bytes(dir / "a", file);
  EXPECT_STEER_ERROR(open_tensors(dir / "a")->read("a"), ErrorCode::format, "checksum");
}

TEST(Zip, RefusesArchivesOfOtherThings) {
  const TempDir dir;
  write_bytes(dir / "a", test::zip_bytes({{"a.txt", "hello"}}));
  EXPECT_STEER_ERROR(open_tensors(dir / "a"), ErrorCode::unsupported, "a.txt");
  write_bytes(dir / "b", test::zip_bytes({}));
  EXPECT_TRUE(open_tensors(dir / "b")->tensors().empty());
}

}  // namespace
}  // namespace steer
