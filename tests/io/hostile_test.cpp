// Files made to break a reader. Each case must end in a steer::Error or, where what is left is still valid, in a clean
// read of everything, within 64 MiB and the size of the file.
#include <steer/io/gguf_writer.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "builders.hpp"
#include "core/format_text.hpp"
#include "peak_memory.hpp"
#include "support.hpp"

namespace steer {
namespace {

using namespace test;

enum class Outcome { error, read, crash };

void touch(const at::Tensor& tensor) {
  const auto data = tensor.contiguous();
  const auto* bytes = static_cast<const volatile unsigned char*>(data.const_data_ptr());
  for (std::size_t i = 0; i < data.nbytes(); ++i) bytes[i];
}

// Opens the file and reads everything in it every way.
Outcome exercise(const std::filesystem::path& path, std::string* message = nullptr) {
  auto outcome = Outcome::read;
  const auto attempt = [&](auto&& action) {
    try {
      action();
    } catch (const Error& error) {
      outcome = Outcome::error;
      if (message) *message = error.what();
    }
  };
  try {
    std::shared_ptr<const TensorReader> reader;
    attempt([&] { reader = open_tensors(path); });
    if (!reader) return outcome;
    for (const auto& info : reader->tensors()) {
      attempt([&] { touch(reader->raw(info.name)); });
      attempt([&] { touch(reader->read(info.name)); });
      if (info.shape.empty()) continue;
      const auto rows = info.shape[0];
      attempt([&] { touch(reader->read_rows(info.name, rows / 2, rows)); });
      attempt([&] { touch(reader->read_rows(info.name, rows - rows / 4, rows - rows / 8)); });
    }
  } catch (const std::exception& error) {
    if (message) *message = std::string("not a steer::Error: ") + error.what();
    return Outcome::crash;
  }
  return outcome;
}

constexpr std::int64_t kMemory = std::int64_t{64} << 20;

// Everything this file checks goes through here, so that one line can sum it up.
class HostileFiles : public testing::Test {
 protected:
  static CaseCounter& counter() {
    static CaseCounter counter("hostile");
    return counter;
  }
  static void TearDownTestSuite() {
    std::printf("hostile: %d cases so far\n", counter().passed() + counter().failed());
  }

  void expect(bool ok, const std::string& what) {
    counter().count(ok);
    EXPECT_TRUE(ok) << what;
  }
  /// These bytes are refused, within the memory limit.
  void expect_refused(const std::string& bytes, const std::string& what) {
    write_bytes(dir_ / "case", bytes);
    const PeakMemory memory;
    std::string message;
    const auto outcome = exercise(dir_ / "case", &message);
    const auto peak = memory.bytes();
    expect(outcome == Outcome::error, what + ": " + (outcome == Outcome::read ? "was accepted" : message));
    expect(peak < kMemory + static_cast<std::int64_t>(bytes.size()), format_text("{}: took {} bytes", what, peak));
  }
  TempDir dir_;
};

struct Valid {
  std::string name, bytes;
  bool padded = false;  ///< its last bytes do not matter
};

std::vector<Valid> valid_files() {
  const TempDir dir;
  save_safetensors(dir / "a",
                   {{"w", at::arange(12, at::kFloat).view({3, 4})},
                    {"b", at::ones({2}, at::kBool)},
                    {"h", at::ones({3}, at::kHalf)},
                    {"s", at::scalar_tensor(1.5)}},
                   {{"format", "pt"}});
  save_gguf(dir / "b",
            {{"general.architecture", "test"},
             {"words", {"a", "bc", "def"}},
             {"n", {1, 2, 3}},
             {"f", 0.5},
             {"general.alignment", 32}},
            {{"w", at::arange(12, at::kFloat).view({3, 4})}, {"h", at::ones({2, 2}, at::kHalf)}});
  std::vector<Valid> files = {{"safetensors", read_file(dir / "a")}, {"gguf", read_file(dir / "b"), true}};
  for (const auto* name : {"v1.npy", "fortran.npy", "deflated.pt", "views.pt", "nested.pt", "legacy.pt"})
    files.push_back({name, read_file(fixture(name))});
  const auto npy = read_file(fixture("v1.npy"));
  files.push_back({"stored.npz", zip_bytes({{"a.npy", npy}, {"b.npy", read_file(fixture("fortran.npy"))}})});
  files.push_back(
      {"deflated.npz", zip_bytes({{"a.npy", npy, true}, {"b.npy", read_file(fixture("fortran.npy")), true}})});
  return files;
}

TEST_F(HostileFiles, ValidOnesAreRead) {
  auto files = valid_files();
  files.push_back({"types.gguf", read_file(fixture("types.gguf"))});
  for (const auto& [name, bytes, padded] : files) {
    write_bytes(dir_ / "case", bytes);
    std::string message;
    const bool unread = name == "types.gguf";  // holds one tensor of a type that is not read
    const auto outcome = exercise(dir_ / "case", &message);
    expect(outcome == (unread ? Outcome::error : Outcome::read), name + ": " + message);
  }
}

// Every length below the true one: more than the issue's "every byte of the header and 64 places after".
TEST_F(HostileFiles, TruncatedAnywhere) {
  auto files = valid_files();
  files.push_back({"types.gguf", read_file(fixture("types.gguf")), true});
  for (const auto& [name, bytes, padded] : files) {
    write_bytes(dir_ / "case", bytes);
    const PeakMemory memory;
    for (auto length = bytes.size(); length-- > 0;) {
      std::filesystem::resize_file(dir_ / "case", length);
      const auto outcome = exercise(dir_ / "case");
      const bool may_be_valid = padded && bytes.size() - length < 32;
      expect(outcome == Outcome::error || (may_be_valid && outcome == Outcome::read),
             format_text("{} cut to {} bytes", name, length));
    }
    expect(memory.bytes() < kMemory, name + " cut: took too much memory");
  }
}

TEST_F(HostileFiles, EveryBitFlipped) {
  auto files = valid_files();
  auto types = read_file(fixture("types.gguf"));
  files.push_back({"types.gguf", types});
  for (const auto& [name, bytes, padded] : files) {
    write_bytes(dir_ / "case", bytes);
    const int fd = ::open((dir_ / "case").c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    const PeakMemory memory;
    // Of the large GGUF fixture the header only.
    const auto end = std::min<std::size_t>(bytes.size(), 2600);
    for (std::size_t at = 0; at < end; ++at)
      for (int bit = 0; bit < 8; ++bit) {
        const char flipped = static_cast<char>(bytes[at] ^ (1 << bit));
        ASSERT_EQ(::pwrite(fd, &flipped, 1, static_cast<off_t>(at)), 1);
        std::string message;
        const auto outcome = exercise(dir_ / "case", &message);
        expect(outcome != Outcome::crash, format_text("{} bit {} of byte {}: {}", name, bit, at, message));
        ASSERT_EQ(::pwrite(fd, &bytes[at], 1, static_cast<off_t>(at)), 1);
      }
    ::close(fd);
    expect(memory.bytes() < kMemory, format_text("{} with flipped bits: took {} bytes", name, memory.bytes()));
  }
}

TEST_F(HostileFiles, SafetensorsHeaders) {
  const auto header = [](const std::string& text, std::size_t data = 8) {
    return safetensors_bytes(text, std::string(data, '\0'));
  };
  const auto one = [&](const std::string& fields) { return header("{\"a\":{" + fields + "}}"); };
  for (const auto length :
       {std::uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7, std::uint64_t{100}, std::uint64_t{1} << 40})
    expect_refused(le(length) + "{}", format_text("header length {}", length));
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  const std::pair<const char*, std::string> cases[] = {
      {"duplicate name", header(R"({"a":{)" + good + R"(},"a":{)" + good + "}}")},
      {"duplicate name, disjoint",
       header(R"({"a":{)" + good + R"(},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 16)},
      {"overlap", header(R"({"a":{)" + good + R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12)},
      {"same range", header(R"({"a":{)" + good + R"(},"b":{)" + good + "}}")},
      {"gap", header(R"({"a":{)" + good + R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16)},
      {"bytes after the data", header("{\"a\":{" + good + "}}", 9)},
      {"2^63 dimension", one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])")},
      {"2^64 dimension", one(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8])")},
      {"product overflow to 2", one(R"("dtype":"F32","shape":[4611686018427387905,4,2],"data_offsets":[0,8])")},
      {"bytes overflow", one(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])")},
      {"empty with overflowing strides",
       one(R"("dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0])")},
      {"negative dimension", one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])")},
      {"fraction", one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])")},
      {"reversed offsets", one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])")},
      {"offset beyond", one(R"("dtype":"F32","shape":[2],"data_offsets":[9223372036854775800,9223372036854775807])")},
      {"three offsets", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])")},
      {"one offset", one(R"("dtype":"F32","shape":[2],"data_offsets":[0])")},
      {"no dtype", one(R"("shape":[2],"data_offsets":[0,8])")},
      {"no shape", one(R"("dtype":"F32","data_offsets":[0,8])")},
      {"shape twice", one(R"("dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8])")},
      {"unknown dtype", one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])")},
      {"unknown field", one(good + R"(,"x":1)")},
      {"nested shape", one(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])")},
      {"17 dimensions", one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])")},
      {"F4 of odd count", header(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2)},
      {"metadata of numbers", header(R"({"__metadata__":{"a":1}})", 0)},
      {"metadata twice", header(R"({"__metadata__":{},"__metadata__":{}})", 0)},
      {"metadata key twice", header(R"({"__metadata__":{"a":"1","a":"2"}})", 0)},
      {"not UTF-8", header("{\"\xff\":{" + good + "}}")},
      {"array", header("[]", 0)},
      {"text after the object", header("{}{}", 0)},
      {"unfinished", header("{\"a\":{", 0)},
  };
  for (const auto& [what, bytes] : cases) expect_refused(bytes, what);
  expect_refused(header("{\"a\":" + std::string(1 << 20, '['), 0), "a million open brackets");
  std::string many = "{";
  for (int i = 0; i < 300000; ++i)
    many += format_text("{}\"{:x}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,0]}}", i ? "," : "", i);
  expect_refused(header(many + "}", 0), "300,000 tensors");
  std::string dims = "{";
  for (int i = 0; i < 200000; ++i)
    dims += format_text(
        "{}\"{:x}\":{{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,0],\"data_offsets\":[0,0]}}",
        i ? "," : "", i);
  expect_refused(header(dims + "}", 1), "200,000 tensors of 16 dimensions");
}

TEST_F(HostileFiles, SafetensorsIndexes) {
  save_safetensors(dir_ / "shard", {{"a", at::ones({2})}});
  for (const std::string text :
       {R"({"weight_map":{"a":"shard","a":"shard"}})", R"({"weight_map":{"a":"../shard"}})",
        R"({"weight_map":{"a":"/etc/passwd"}})", R"({"weight_map":{"a":".."}})",
        R"({"weight_map":{"a":"sh\u0000ard"}})", R"({"weight_map":{"a":""}})", R"({"weight_map":{"a":"case"}})",
        R"({"weight_map":{"a":["shard"]}})", R"({"weight_map":{"a":{"b":"shard"}}})",
        R"({"weight_map":{},"weight_map":{}})", R"({"weight_map":3})", R"({"weight_map":{"b":"shard"}})",
        R"({"x":[[[[[[[[[[1]]]]]]]]]]})", "{"})
    expect_refused(text, text);
}

// A GGUF file of these parts; counts as given.
std::string gguf_bytes(std::uint64_t tensors, std::uint64_t pairs, const std::string& body, std::size_t data = 64) {
  auto head = "GGUF" + le<std::uint32_t>(3) + le(tensors) + le(pairs) + body;
  head.resize((head.size() + 31) / 32 * 32, '\0');
  return head + std::string(data, '\0');
}
std::string g_text(const std::string& text) { return le<std::uint64_t>(text.size()) + text; }
std::string g_tensor(const std::string& name, const std::vector<std::uint64_t>& sizes, std::uint32_t type,
                     std::uint64_t offset) {
  auto out = g_text(name) + le<std::uint32_t>(static_cast<std::uint32_t>(sizes.size()));
  for (const auto size : sizes) out += le(size);
  return out + le(type) + le(offset);
}
std::string g_array(std::uint32_t type, std::uint64_t count, const std::string& values) {
  return g_text("k") + le<std::uint32_t>(9) + le(type) + le(count) + values;
}

TEST_F(HostileFiles, GgufHeaders) {
  const std::uint64_t huge = std::uint64_t{1} << 63;
  const std::pair<const char*, std::string> cases[] = {
      {"2^63 tensors", gguf_bytes(huge, 0, "")},
      {"2^64 - 1 pairs", gguf_bytes(0, UINT64_MAX, "")},
      {"300,000 tensors", gguf_bytes(300000, 0, "", 300000 * 24)},
      {"version 1", "GGUF" + le<std::uint32_t>(1) + std::string(64, '\0')},
      {"big-endian", "GGUF" + le<std::uint32_t>(0x03000000) + std::string(64, '\0')},
      {"key of 2^63 bytes", gguf_bytes(0, 1, le(huge) + "k")},
      {"unknown value type", gguf_bytes(0, 1, g_text("k") + le<std::uint32_t>(13))},
      {"bool of 2", gguf_bytes(0, 1, g_text("k") + le<std::uint32_t>(7) + "\2")},
      {"array of 2^62", gguf_bytes(0, 1, g_array(0, std::uint64_t{1} << 62, ""))},
      {"array of 2^61 f64", gguf_bytes(0, 1, g_array(12, (std::uint64_t{1} << 61) + 1, ""))},
      {"array of unknown type", gguf_bytes(0, 1, g_array(77, 1, ""))},
      {"string of 2^64 - 1 in an array", gguf_bytes(0, 1, g_array(8, 1, le(UINT64_MAX)))},
      {"key twice",
       gguf_bytes(0, 2, g_text("k") + le<std::uint32_t>(0) + "1" + g_text("k") + le<std::uint32_t>(0) + "1")},
      {"alignment 0", gguf_bytes(0, 1, g_text("general.alignment") + le<std::uint32_t>(4) + le<std::uint32_t>(0))},
      {"alignment 3", gguf_bytes(0, 1, g_text("general.alignment") + le<std::uint32_t>(4) + le<std::uint32_t>(3))},
      {"alignment 2^63", gguf_bytes(0, 1, g_text("general.alignment") + le<std::uint32_t>(10) + le(huge))},
      {"alignment as text", gguf_bytes(0, 1, g_text("general.alignment") + le<std::uint32_t>(8) + g_text("32"))},
      {"tensor twice", gguf_bytes(2, 0, g_tensor("a", {4}, 0, 0) + g_tensor("a", {4}, 0, 32))},
      {"overlap", gguf_bytes(2, 0, g_tensor("a", {16}, 0, 0) + g_tensor("b", {4}, 0, 32))},
      {"same range", gguf_bytes(2, 0, g_tensor("a", {4}, 0, 0) + g_tensor("b", {4}, 0, 0))},
      {"beyond the file", gguf_bytes(1, 0, g_tensor("a", {17}, 0, 0))},
      {"offset beyond the file", gguf_bytes(1, 0, g_tensor("a", {4}, 0, 96))},
      {"offset near 2^64", gguf_bytes(1, 0, g_tensor("a", {16}, 0, UINT64_MAX - 31))},
      {"unaligned offset", gguf_bytes(1, 0, g_tensor("a", {4}, 0, 4))},
      {"2^63 dimension", gguf_bytes(1, 0, g_tensor("a", {huge}, 0, 0))},
      {"2^62 dimension", gguf_bytes(1, 0, g_tensor("a", {huge / 2}, 0, 0))},
      {"product overflow", gguf_bytes(1, 0, g_tensor("a", {std::uint64_t{1} << 33, std::uint64_t{1} << 33}, 0, 0))},
      {"5 dimensions", gguf_bytes(1, 0, g_tensor("a", {1, 1, 1, 1, 1}, 0, 0))},
      {"2^32 - 1 dimensions", gguf_bytes(1, 0, g_text("a") + le(UINT32_MAX))},
      {"removed type", gguf_bytes(1, 0, g_tensor("a", {32}, 4, 0))},
      {"unknown type", gguf_bytes(1, 0, g_tensor("a", {32}, 1000, 0))},
      {"row that is no whole block", gguf_bytes(1, 0, g_tensor("a", {16, 2}, 8, 0))},
  };
  for (const auto& [what, bytes] : cases) expect_refused(bytes, what);
  std::string nested;
  for (int i = 0; i < 1000; ++i) nested += le<std::uint32_t>(9) + le<std::uint64_t>(1);
  expect_refused(gguf_bytes(0, 1, g_text("k") + le<std::uint32_t>(9) + nested), "arrays 1000 deep");
  // 16 bytes of memory for one in the file.
  expect_refused(gguf_bytes(0, 1, g_array(0, 16 << 20, std::string(16 << 20, '\0'))), "16 Mi small numbers");
  std::string words;
  for (int i = 0; i < 2000000; ++i) words += le<std::uint64_t>(0);
  expect_refused(gguf_bytes(0, 1, g_array(8, 2000000, words)), "2,000,000 empty strings");
}

TEST_F(HostileFiles, ZipArchives) {
  const auto npy = read_file(fixture("v1.npy"));
  const auto good = zip_bytes({{"a.npy", npy}, {"b.npy", npy}});
  const auto patched = [&](std::string_view signature, std::size_t offset, const std::string& bytes,
                           bool second = false) {
    auto file = good;
    auto at = file.find(signature);
    if (second) at = file.find(signature, at + 1);
    return file.replace(at + offset, bytes.size(), bytes);
  };
  const std::string central = "PK\1\2", local = "PK\3\4", end = "PK\5\6";
  expect_refused(patched(central, 42, le<std::uint32_t>(0), true), "two entries, one local header");
  expect_refused(patched(central, 42, le<std::uint32_t>(UINT32_MAX - 1)), "local header beyond the file");
  expect_refused(patched(central, 20, le<std::uint32_t>(1 << 30) + le<std::uint32_t>(1 << 30)), "data beyond the file");
  expect_refused(patched(central, 20, le<std::uint32_t>(200) + le<std::uint32_t>(200)), "data over the next entry");
  expect_refused(patched(central, 24, le<std::uint32_t>(1)), "sizes that differ");
  expect_refused(patched(central, 8, le<std::uint16_t>(1)), "encrypted");
  expect_refused(patched(central, 10, le<std::uint16_t>(12)), "bzip2");
  expect_refused(patched(central, 28, le<std::uint16_t>(0xffff)), "long name");
  expect_refused(patched(local, 26, le<std::uint16_t>(0xffff)), "long name in the local header");
  expect_refused(patched(local, 30, "x"), "another name in the local header");
  expect_refused(patched(end, 10, le<std::uint16_t>(0xffff)), "65,535 entries");
  expect_refused(patched(end, 12, le<std::uint32_t>(UINT32_MAX)), "directory of 4 GiB");
  expect_refused(patched(end, 16, le<std::uint32_t>(UINT32_MAX)), "directory beyond the file");
  expect_refused(patched(central, 24, le<std::uint32_t>(UINT32_MAX)), "Zip64 sizes missing");
  expect_refused(zip_bytes({{"a.npy", npy}, {"a.npy", npy}}), "name twice");
  expect_refused(zip_bytes({{"a.npy", npy, true, npy.size() + 1}}), "unpacks to less than it says");
  expect_refused(zip_bytes({{"a.npy", npy, true, npy.size() - 1}}), "unpacks to more than it says");
  expect_refused(zip_bytes({{"a.npy", npy, true, std::uint64_t{1} << 62}}), "says it unpacks to 2^62 bytes");
  expect_refused(zip_bytes({{"a.npy", npy, true, UINT64_MAX - 1}}), "says it unpacks to 2^64 - 2 bytes");
  expect_refused(zip_bytes({{"a.npy", ""}}), "empty npy");

  // Zip bombs: 256 MiB of zeros in 256 KiB, as an array and as a PyTorch pickle, and one that lies about its size.
  const std::int64_t bomb_size = std::int64_t{256} << 20;
  auto header = format_text("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", bomb_size / 4);
  header = "\x93NUMPY\1" + std::string(1, '\0') + le<std::uint16_t>(static_cast<std::uint16_t>(header.size())) + header;
  std::string array, pickled, liar;
  {
    const std::string zeros(static_cast<std::size_t>(bomb_size), '\0');
    array = zip_bytes({{"a.npy", header + zeros, true}});
    pickled = zip_bytes({{"a/data.pkl", zeros, true}});
    liar = zip_bytes({{"a.npy", npy.substr(0, 128) + zeros, true, npy.size() + 4096}});
  }
  expect_refused(array, "npz bomb");
  expect_refused(pickled, "pickle bomb");
  expect_refused(liar, "bomb that lies about its size");
}

TEST_F(HostileFiles, PickleOpcodes) {
  const auto tensor = p_tensor(p_storage("0", 12), 0, {3, 4}, {4, 1});
  {
    write_bytes(dir_ / "case", pt_bytes(pickle(p_dict(tensor))));
    std::string message;
    const auto outcome = exercise(dir_ / "case", &message);
    expect(outcome == Outcome::read, "the valid pickle: " + message);
  }
  const std::string allowed =
      "\x80"
      "c(XJKM\x8aGt\x85\x86\x87)]}qrhjRbQsuae\x88\x89N.";
  for (int opcode = 0; opcode < 256; ++opcode)
    if (allowed.find(static_cast<char>(opcode)) == std::string::npos)
      for (const std::string& rest : {std::string(), std::string(16, '\0'), "1\n" + tensor})
        expect_refused(pt_bytes("\x80\x02" + std::string(1, static_cast<char>(opcode)) + rest + "."),
                       format_text("opcode {:#x}", opcode));
  for (const std::string name : {"os system",
                                 "posix system",
                                 "nt system",
                                 "subprocess Popen",
                                 "builtins eval",
                                 "builtins exec",
                                 "builtins getattr",
                                 "__builtin__ eval",
                                 "torch load",
                                 "torch._utils _rebuild_tensor",
                                 "torch._utils _rebuild_sparse_tensor",
                                 "torch.storage _load_from_bytes",
                                 "torch.jit load",
                                 "collections defaultdict",
                                 "collections OrderedDict.__class__",
                                 "torch.FloatStorage __reduce__",
                                 "torch FloatStorageX",
                                 "torch UntypedStorage",
                                 "numpy.core.multiarray _reconstruct",
                                 "codecs encode",
                                 "__main__ Evil",
                                 "runpy _run_code",
                                 " ",
                                 "torch ",
                                 " FloatStorage"}) {
    const auto module = name.substr(0, name.find(' ')), attribute = name.substr(name.find(' ') + 1);
    const auto global = "c" + module + "\n" + attribute + "\n";
    for (const std::string& use :
         {global, global + ")R", global + "(" + p_text("echo") + "tR", p_dict(global + p_text("x") + "\x85R")})
      expect_refused(pt_bytes(pickle(use)), name);
  }
}

TEST_F(HostileFiles, PickleStructures) {
  const auto make = [](const std::string& storage, std::int64_t offset, const std::vector<std::int64_t>& sizes,
                       const std::vector<std::int64_t>& strides) {
    return pt_bytes(pickle(p_dict(p_tensor(storage, offset, sizes, strides))));
  };
  const auto storage = p_storage("0", 12);
  const auto rebuilt = "ctorch._utils\n_rebuild_tensor_v2\n";
  const std::pair<const char*, std::string> cases[] = {
      {"storage larger than its entry", make(p_storage("0", 13), 0, {13}, {1})},
      {"storage of 2^62", make(p_storage("0", std::int64_t{1} << 62), 0, {12}, {1})},
      {"storage of -1", make(p_storage("0", -1), 0, {1}, {1})},
      {"no such storage", make(p_storage("1", 12), 0, {12}, {1})},
      {"storage elsewhere", make(p_storage("../version", 1, "ByteStorage"), 0, {1}, {1})},
      {"negative offset", make(storage, -1, {1}, {1})},
      {"offset beyond", make(storage, 12, {1}, {1})},
      {"offset of 2^63 - 1", make(storage, INT64_MAX, {2}, {1})},
      {"negative size", make(storage, 0, {-1}, {1})},
      {"negative stride", make(storage, 11, {12}, {-1})},
      {"stride beyond", make(storage, 0, {2}, {12})},
      {"stride overflow", make(storage, 0, {3}, {INT64_MAX})},
      {"sum of strides overflow", make(storage, 0, {2, 2, 2}, {INT64_MAX / 2, INT64_MAX / 2, INT64_MAX / 2})},
      {"product overflow", make(storage, 0, {std::int64_t{1} << 32, std::int64_t{1} << 32}, {0, 0})},
      {"expanded to 2^40", make(storage, 0, {std::int64_t{1} << 40}, {0})},
      {"empty with overflowing strides", make(storage, 0, {0, INT64_MAX, INT64_MAX}, {1, 1, 1})},
      {"fewer strides than sizes", make(storage, 0, {3, 4}, {1})},
      {"17 dimensions", make(storage, 0, std::vector<std::int64_t>(17, 1), std::vector<std::int64_t>(17, 1))},
      {"bool bytes of 255",
       zip_bytes({{"a/data.pkl", pickle(p_dict(p_tensor(p_storage("0", 2, "BoolStorage"), 0, {2}, {1})))},
                  {"a/data/0", "\xff\xff"}})},
      {"tensor without arguments", pt_bytes(pickle(std::string(rebuilt) + ")R"))},
      {"tensor of numbers", pt_bytes(pickle(std::string(rebuilt) + "(K\1K\1K\1K\1K\1K\1tR"))},
      {"storage id of numbers", pt_bytes(pickle("(K\1K\1K\1K\1K\1tQ"))},
      {"storage id that is no tuple", pt_bytes(pickle("K\1Q"))},
      {"call of a storage type", pt_bytes(pickle("ctorch\nFloatStorage\n)R"))},
      {"call of a number", pt_bytes(pickle("K\1)R"))},
      {"attributes of a tensor", pt_bytes(pickle(p_tensor(storage, 0, {1}, {1}) + "}b"))},
      {"stack underflow", pt_bytes(pickle("R"))},
      {"tuple without mark", pt_bytes(pickle("t"))},
      {"tuple across a mark", pt_bytes(pickle("K\1(\x85"))},
      {"items of a tuple", pt_bytes(pickle(")(K\1K\1u"))},
      {"odd items", pt_bytes(pickle("}(K\1u"))},
      {"append to a dict", pt_bytes(pickle("}K\1a"))},
      {"unknown memo", pt_bytes(pickle("h\1"))},
      {"memo of nothing", pt_bytes(pickle("q\1"))},
      {"integer of 255 bytes", pt_bytes(pickle("\x8a\xff" + std::string(255, '\1')))},
      {"string of 4 GiB", pt_bytes(pickle("X\xff\xff\xff\xff"))},
      {"unfinished global", pt_bytes("\x80\2ctorch")},
      {"no stop", pt_bytes("\x80\2N")},
      {"nothing", pt_bytes("\x80\2.")},
      {"empty", pt_bytes("")},
      {"bytes after stop", pt_bytes("\x80\2N.N")},
      {"two values", pt_bytes("\x80\2NN.")},
      {"protocol 3", pt_bytes("\x80\3N.")},
      {"list that holds itself", pt_bytes(pickle("]q\1h\1a"))},
      {"dict that holds itself", pt_bytes(pickle("}q\1" + p_text("x") + "h\1s"))},
      {"a float as key", pt_bytes(pickle("}G" + std::string(8, '\0') + "Ns"))},
      {"a storage as value", pt_bytes(pickle(storage))},
      {"a type as value", pt_bytes(pickle("ctorch\nFloatStorage\n"))},
      {"same name twice", pt_bytes(pickle("}(" + p_text("1") + p_tensor(storage, 0, {1}, {1}) + "K\1" +
                                          p_tensor(storage, 0, {1}, {1}) + "u"))},
      {"big-endian", zip_bytes({{"a/data.pkl", pickle("N")}, {"a/byteorder", "big"}})},
  };
  for (const auto& [what, bytes] : cases) expect_refused(bytes, what);

  std::string deep = ")";
  for (int i = 0; i < 1000000; ++i) deep += '\x85';
  expect_refused(pt_bytes(pickle(deep)), "tuples a million deep");
  std::string laughs = "]";  // each list holds the one before 16 times: 16^30 in all
  for (int i = 0; i < 30; ++i)
    laughs += "q\1](" + [] {
      std::string all;
      for (int j = 0; j < 16; ++j) all += "h\1";
      return all;
    }() + "e";
  expect_refused(pt_bytes(pickle(laughs)), "a billion laughs");
  std::string shallow = "](" + p_text(std::string(60000, 'x')) + "q\1";  // one string, 20,000 times
  for (int i = 0; i < 20000; ++i) shallow += "h\1";
  expect_refused(pt_bytes(pickle(shallow + "e")), "one long string, many times");
  expect_refused(pt_bytes(pickle(std::string(8 << 20, 'N'))), "8 Mi values");
  expect_refused(pt_bytes(pickle(std::string(8 << 20, ']'))), "8 Mi lists");
  expect_refused(pt_bytes(pickle(std::string(8 << 20, '('))), "8 Mi marks");
  std::string memo = "N";
  for (std::uint32_t i = 0; i < 2000000; ++i) memo += "r" + le(i);
  expect_refused(pt_bytes(pickle(memo)), "2,000,000 memo entries");
  std::string tensors = "](" + p_tensor(storage, 0, {1}, {1}) + "q\1";
  for (int i = 0; i < 500000; ++i) tensors += "h\1";
  expect_refused(pt_bytes(pickle(tensors + "e")), "one tensor, 500,000 times");
}

TEST_F(HostileFiles, NpyHeaders) {
  const auto npy = [](std::uint8_t major, const std::string& length, const std::string& header) {
    return "\x93NUMPY" + std::string(1, static_cast<char>(major)) + std::string(1, '\0') + length + header;
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }";
  expect_refused(npy(2, le(UINT32_MAX), good), "header of 4 GiB");
  expect_refused(npy(2, le<std::uint32_t>(1 << 20), std::string(1 << 20, '(')), "a million parentheses");
  expect_refused(npy(0, le<std::uint16_t>(57), good), "version 0");
  expect_refused(npy(4, le<std::uint16_t>(57), good), "version 4");
  for (const std::string header :
       {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3, }", "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': ()}", "{'descr': '<f4, 'fortran_order': False, 'shape': ()}",
        "{'descr': '<V4', 'fortran_order': False, 'shape': ()}", "{'descr': 'O', 'fortran_order': False, 'shape': ()}",
        "{'descr': '', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (),} os", "", "{",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}"})
    expect_refused(npy(1, le<std::uint16_t>(static_cast<std::uint16_t>(header.size())), header) +
                       (header.find("()") != header.npos ? "1234" : ""),
                   header);
}

}  // namespace
}  // namespace steer
