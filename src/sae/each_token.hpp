#pragma once

namespace steer::sae::detail {

/// While one lives, what SAEs compute on this thread of a token has the same bits whatever other tokens are computed
/// with it: for sessions that promise that of their rows. On the CPU one product serves all tokens, whose order of
/// additions does not depend on their number; elsewhere, and under gradients, each token gets a product of its own.
class EachTokenAlone {
 public:
  explicit EachTokenAlone(bool wanted = true) : before_(on_) { on_ = on_ || wanted; }
  ~EachTokenAlone() { on_ = before_; }
  EachTokenAlone(const EachTokenAlone&) = delete;
  EachTokenAlone& operator=(const EachTokenAlone&) = delete;
  static bool on() { return on_; }

 private:
  bool before_;
  static inline thread_local bool on_ = false;
};

}  // namespace steer::sae::detail
