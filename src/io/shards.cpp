#include "io/shards.hpp"

#include <charconv>
#include <map>

#include "core/format_text.hpp"
#include "io/open_container.hpp"
#include "io/strict_json.hpp"
#include "io/view_reader.hpp"

namespace steer::io::detail {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kMaxIndex = 100'000'000;
/// The largest published models have some hundred.
constexpr std::int64_t kMaxShards = 10'000;

// {"metadata": {...}, "weight_map": {tensor: file}}; only weight_map counts.
class IndexEvents final : public JsonEvents {
 public:
  explicit IndexEvents(std::string what) : JsonEvents(8, kOpenTensors, std::move(what)) {}
  std::map<std::string, std::uint32_t> shard_of;
  std::vector<std::string> shards;
  bool has_weight_map = false;

 private:
  bool in_map() const { return !keys().empty() && keys()[0] == "weight_map"; }
  void on_object() override {
    if (!in_map()) return;
    if (keys().size() > 1 || std::exchange(has_weight_map, true)) refuse("an object, or weight_map twice");
  }
  void on_array() override {
    if (in_map() || keys().empty()) refuse("an array");
  }
  void on_unsigned(std::uint64_t) override {
    if (in_map()) refuse("a number");
  }
  void on_other() override {
    if (in_map()) refuse("a value that is no file name");
  }
  void on_text(std::string&& file) override {
    if (!in_map()) return;
    if (keys().size() != 2) refuse("a string");
    if (shard_of.size() >= kMaxTensors) refuse("more tensors than any model has");
    // A file outside the index's folder is never what a published model has, and may be what an attacker wants read.
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      refuse("a shard outside the index's folder, " + quote(file));
    const auto [place, is_new] = numbers_.try_emplace(std::move(file), static_cast<std::uint32_t>(shards.size()));
    if (is_new) shards.push_back(place->first);
    if (!shard_of.emplace(keys()[1], place->second).second) refuse("a tensor twice");
  }
  std::map<std::string, std::uint32_t> numbers_;
};

/// One reader over `files`. @param placed  the number of the file that a tensor is to be taken from; nullptr: all.
std::shared_ptr<const TensorReader> join(const fs::path& path, const std::vector<fs::path>& files,
                                         const std::map<std::string, std::uint32_t>* placed) {
  std::vector<ViewTensor> tensors;
  auto metadata = nlohmann::json::object();
  std::string format;
  for (std::uint32_t number = 0; number < files.size(); ++number) {
    const auto part = open_container(files[number]);
    if (format.empty()) format = part->format();
    require(part->format() == format, ErrorCode::format, kOpenTensors,
            "expected parts of one format but got {} in {} and {} in {}", format, files[0].filename().string(),
            part->format(), files[number].string());
    for (const auto& info : part->tensors()) {
      if (placed) {
        const auto wanted = placed->find(info.name);
        if (wanted == placed->end() || wanted->second != number) continue;
      }
      require(tensors.size() < kMaxTensors, ErrorCode::format, kOpenTensors,
              "expected at most {} tensors but got more ({})", kMaxTensors, path.string());
      tensors.push_back(tensor_of(part, info));
    }
    metadata.update(part->metadata());
  }
  return view_of_tensors(std::move(format), path, std::move(metadata), std::move(tensors));
}

std::string list_of(const std::vector<std::string>& names) {
  return quote(names[0]) + (names.size() > 1 ? format_text(" and {} more", names.size() - 1) : "");
}

std::optional<std::int64_t> number_in(std::string_view digits) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.size() < 5 || digits[0] == '-' || error != std::errc() || end != digits.data() + digits.size()) return {};
  return value;
}

}  // namespace

std::string ShardName::of(std::int64_t part) const {
  return format_text("{}-{:05}-of-{:05}{}", stem, part, count, ending);
}

std::optional<ShardName> parse_shard_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const auto base = name.substr(0, dot);
  const auto of = base.rfind("-of-");
  if (of == std::string_view::npos || of == 0) return {};
  const auto dash = base.rfind('-', of - 1);
  if (dash == std::string_view::npos) return {};
  const auto number = number_in(base.substr(dash + 1, of - dash - 1)), count = number_in(base.substr(of + 4));
  if (!number || !count || *number < 1 || *number > *count || *count > kMaxShards) return {};
  return ShardName{std::string(base.substr(0, dash)), *number, *count, std::string(name.substr(dot))};
}

std::vector<fs::path> require_shards(const fs::path& folder, const ShardName& name) {
  std::vector<fs::path> paths;
  std::vector<std::string> missing;
  for (std::int64_t part = 1; part <= name.count; ++part) {
    paths.push_back(folder / name.of(part));
    if (std::error_code ignored; !fs::exists(paths.back(), ignored)) missing.push_back(name.of(part));
  }
  if (!missing.empty())
    fail(ErrorCode::io, kOpenTensors, "expected all {} parts but {} is missing ({}); download it into the same folder",
         name.count, list_of(missing), (folder / name.of(name.number)).string());
  return paths;
}

std::shared_ptr<const TensorReader> open_shards(const fs::path& part) {
  const auto name = parse_shard_name(part.filename().string());
  // Of a split GGUF the container itself finds the other parts.
  if (!name || name->count == 1 || name->ending == ".gguf") return open_container(part);
  return join(part, require_shards(part.parent_path(), *name), nullptr);
}

std::shared_ptr<const TensorReader> open_sharded_index(const fs::path& index, const MappedFile& file) {
  const auto text = as_text(file.bytes());
  require(text.size() <= kMaxIndex, ErrorCode::format, kOpenTensors,
          "expected an index of at most {} bytes but got {} ({})", kMaxIndex, text.size(), index.string());
  IndexEvents events(index.string());
  events.parse(text);
  require(events.has_weight_map, ErrorCode::format, kOpenTensors,
          "expected a \"weight_map\", as a *.safetensors.index.json has, but got JSON without one ({}); name the "
          "weight file or its folder",
          index.string());
  std::vector<fs::path> files;
  std::vector<std::string> missing;
  for (const auto& shard : events.shards) {
    files.push_back(index.parent_path() / shard);
    if (std::error_code ignored; !fs::exists(files.back(), ignored)) missing.push_back(shard);
  }
  if (!missing.empty())
    fail(ErrorCode::io, kOpenTensors,
         "expected the {} files that the index names but got {} of them ({}); download {} into the same folder",
         files.size(), files.size() - missing.size(), index.string(), list_of(missing));
  const auto joined = join(index, files, &events.shard_of);
  for (const auto& [name, shard] : events.shard_of)
    if (!joined->contains(name))
      fail(ErrorCode::format, kOpenTensors, "expected a tensor {} in {} but got none ({})", quote(name),
           quote(events.shards[shard]), index.string());
  return joined;
}

}  // namespace steer::io::detail
