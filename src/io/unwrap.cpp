#include "io/unwrap.hpp"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <map>

#include "io/bytes.hpp"
#include "io/view_reader.hpp"

namespace steer::io::detail {
namespace {

constexpr std::string_view kCheckpoint[] = {"state_dict.", "model_state_dict."};
constexpr std::string_view kModule[] = {"module.", "_orig_mod."};
constexpr std::string_view kTrainer[] = {"optimizer.", "optimizers.",   "optim.",  "optimizer_state_dict.",
                                         "scheduler.", "lr_scheduler.", "scaler.", "rng_state."};

template <class List>
bool strip_any(std::string_view& name, const List& prefixes) {
  for (const std::string_view prefix : prefixes)
    if (name.size() > prefix.size() && name.starts_with(prefix)) {
      name.remove_prefix(prefix.size());
      return true;
    }
  return false;
}

}  // namespace

std::shared_ptr<const TensorReader> without_wrappers(std::shared_ptr<const TensorReader> reader) {
  bool wrapped = false, checkpoint = false;
  std::vector<std::string_view> names;  // of each tensor, without what wraps it
  for (const auto& info : reader->tensors()) {
    std::string_view name = info.name;
    while (true) {
      const bool outer = strip_any(name, kCheckpoint);
      if (!outer && !strip_any(name, kModule)) break;
      checkpoint = checkpoint || outer;
      wrapped = true;
    }
    names.push_back(name);
  }
  if (!wrapped) return reader;
  std::map<std::string_view, const TensorInfo*> seen;
  std::vector<ViewTensor> kept;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& info = reader->tensors()[i];
    if (std::string_view rest = info.name; checkpoint && strip_any(rest, kTrainer)) continue;
    const auto [place, is_new] = seen.emplace(names[i], &info);
    if (is_new) {
      kept.push_back(tensor_of(reader, info, std::string(names[i])));
      continue;
    }
    const auto& other = *place->second;
    const bool same = other.shape == info.shape && other.storage == info.storage &&
                      at::equal(reader->raw(other.name), reader->raw(info.name));
    require(same, ErrorCode::format, "open_tensors",
            "expected one tensor {} but got {} and {} with other values ({}); remove the one that is not meant",
            quote(names[i]), quote(other.name), quote(info.name), reader->path().string());
  }
  return view_of_tensors(*reader, std::move(kept));
}

}  // namespace steer::io::detail
