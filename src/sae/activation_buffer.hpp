#pragma once
// A pool of activations drawn from in random order, so that a batch mixes many texts.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/sae/trainer.hpp>

namespace steer::sae::detail {

class ActivationBuffer {
 public:
  /// @param progress  its remark says how full the buffer is while it fills, which may take minutes.
  ActivationBuffer(ActivationSource source, std::int64_t d_in, std::int64_t capacity, std::uint64_t seed,
                   const Progress& progress);

  /// The next `tokens` rows [tokens, d_in], f32. Refills to at least the capacity when fewer than half of it, or fewer
  /// than `tokens`, are left. @throws Error(argument) when the source ends or gives rows of another width or not
  /// finite.
  at::Tensor draw(std::int64_t tokens);
  /// All rows held, in the order in which they will be drawn.
  at::Tensor remaining() const;

  std::int64_t read() const { return read_; }
  std::int64_t refills() const { return refills_; }
  /// Puts back what `remaining`, `read` and `refills` gave, and skips the source to there where it can.
  void restore(at::Tensor remaining, std::int64_t read, std::int64_t refills);
  /// Fills up if empty.
  void prime();

 private:
  void refill();

  ActivationSource source_;
  std::int64_t d_in_, capacity_;
  std::uint64_t seed_;
  Progress progress_;
  at::Tensor rows_;                  // [held, d_in]
  std::vector<std::int64_t> order_;  // positions in rows_
  std::int64_t next_ = 0;            // in order_
  std::int64_t read_ = 0, refills_ = 0;
};

}  // namespace steer::sae::detail
