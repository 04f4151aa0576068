#include <steer/core/hash.hpp>

#include <xxhash.h>

#include <fstream>
#include <vector>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {
std::string hex_of(XXH128_hash_t hash) { return format_text("{:016x}{:016x}", hash.high64, hash.low64); }
}  // namespace

struct ContentHasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

ContentHasher::ContentHasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(state_->xxh); }
ContentHasher::~ContentHasher() = default;
ContentHasher::ContentHasher(ContentHasher&&) noexcept = default;
ContentHasher& ContentHasher::operator=(ContentHasher&&) noexcept = default;

ContentHasher& ContentHasher::update(std::string_view bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
  return *this;
}

std::string ContentHasher::hex() const { return hex_of(XXH3_128bits_digest(state_->xxh)); }

std::string content_hash(std::string_view bytes) { return hex_of(XXH3_128bits(bytes.data(), bytes.size())); }

std::string content_hash(std::span<const std::byte> bytes) { return hex_of(XXH3_128bits(bytes.data(), bytes.size())); }

std::string content_hash_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  require(file.good(), ErrorCode::io, "content_hash_file", "expected a readable file but got {}", path.string());
  ContentHasher hasher;
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0)
    hasher.update({block.data(), static_cast<std::size_t>(file.gcount())});
  require(!file.bad(), ErrorCode::io, "content_hash_file", "expected to read {} to its end but reading failed",
          path.string());
  return hasher.hex();
}

}  // namespace steer
