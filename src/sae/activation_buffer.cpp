#include "sae/activation_buffer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <fmt/ranges.h>

#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/format_text.hpp"

namespace steer::sae::detail {
namespace {
constexpr std::string_view kTrain = "SaeTrainer";
}

ActivationBuffer::ActivationBuffer(ActivationSource source, std::int64_t d_in, std::int64_t capacity,
                                   std::uint64_t seed, const Progress& progress)
    : source_(std::move(source)),
      d_in_(d_in),
      capacity_(capacity),
      seed_(seed),
      progress_(progress),
      rows_(at::empty({0, d_in})) {}

at::Tensor ActivationBuffer::remaining() const {
  const auto left = static_cast<std::int64_t>(order_.size()) - next_;
  auto order = at::empty({left}, at::kLong);
  std::copy(order_.begin() + next_, order_.end(), order.data_ptr<std::int64_t>());
  return rows_.index_select(0, order);
}

void ActivationBuffer::refill() {
  std::vector<at::Tensor> parts = {remaining()};
  for (std::int64_t held = parts.front().size(0); held < capacity_;) {
    auto part = source_.read(capacity_ - held);
    require(part.defined() && part.numel() > 0, ErrorCode::argument, kTrain,
            "the source of activations ended after {} tokens; give more data or fewer steps", read_);
    require(part.dim() == 2 && part.size(1) == d_in_, ErrorCode::shape, kTrain,
            "expected activations of shape [n, {}] from the source but got [{}]", d_in_, fmt::join(part.sizes(), ", "));
    part = part.to(at::kCPU, at::kFloat);
    require(at::isfinite(part).all().item<bool>(), ErrorCode::argument, kTrain,
            "expected finite activations from the source but got NaN or infinity after {} tokens", read_);
    held += part.size(0);
    read_ += part.size(0);
    parts.push_back(std::move(part));
    progress_.note(format_text("{} of {} activations in the buffer", held, capacity_));
    progress_.advance(0);
  }
  rows_ = at::cat(parts);
  order_.resize(static_cast<std::size_t>(rows_.size(0)));
  std::iota(order_.begin(), order_.end(), 0);
  // The order follows from the seed and the count alone, so a resumed run needs no generator state.
  Rng rng(derive_seed(seed_, "activation buffer", static_cast<std::uint64_t>(refills_++)));
  rng.shuffle(order_);
  next_ = 0;
}

void ActivationBuffer::prime() {
  if (order_.empty()) refill();
}

at::Tensor ActivationBuffer::draw(std::int64_t tokens) {
  const auto left = static_cast<std::int64_t>(order_.size()) - next_;
  if (left < tokens || 2 * left < capacity_) refill();
  auto picked = at::empty({tokens}, at::kLong);
  std::copy_n(order_.begin() + next_, tokens, picked.data_ptr<std::int64_t>());
  next_ += tokens;
  return rows_.index_select(0, picked);
}

void ActivationBuffer::restore(at::Tensor remaining, std::int64_t read, std::int64_t refills) {
  rows_ = std::move(remaining);
  order_.resize(static_cast<std::size_t>(rows_.size(0)));
  std::iota(order_.begin(), order_.end(), 0);
  next_ = 0;
  read_ = read;
  refills_ = refills;
  if (source_.skip) source_.skip(read);
}

}  // namespace steer::sae::detail
