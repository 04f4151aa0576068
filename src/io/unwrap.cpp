#include "io/unwrap.hpp"

#include <ATen/Functions.h>

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
  std::vector<ViewTensor> tensors;
  for (const auto& info : reader->tensors()) {
    std::string_view name = info.name;
    while (true) {
      const bool outer = strip_any(name, kCheckpoint);
      if (!outer && !strip_any(name, kModule)) break;
      checkpoint = checkpoint || outer;
      wrapped = true;
    }
    tensors.push_back({std::string(name), reader, info.name});
  }
  if (!wrapped) return reader;
  if (checkpoint)
    std::erase_if(tensors, [](const ViewTensor& tensor) {
      std::string_view name = tensor.original;
      return strip_any(name, kTrainer);
    });
  std::map<std::string_view, const ViewTensor*> seen;
  std::vector<ViewTensor> kept;
  kept.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    const auto [place, is_new] = seen.emplace(tensor.name, &tensor);
    if (is_new) {
      kept.push_back(tensor);
      continue;
    }
    const auto& other = place->second->original;
    const auto& a = reader->info(other);
    const auto& b = reader->info(tensor.original);
    const bool same =
        a.shape == b.shape && a.storage == b.storage && at::equal(reader->raw(other), reader->raw(tensor.original));
    require(same, ErrorCode::format, "open_tensors",
            "expected one tensor {} but got {} and {} with other values ({}); remove the one that is not meant",
            quote(tensor.name), quote(other), quote(tensor.original), reader->path().string());
  }
  return view_of_tensors(std::string(reader->format()), reader->path(), reader->metadata(), std::move(kept));
}

}  // namespace steer::io::detail
