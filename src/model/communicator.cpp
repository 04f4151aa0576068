#include <steer/model/communicator.hpp>

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "core/meeting.hpp"

namespace steer {
namespace {

/// Exchange n is a key for each rank. Who has everyone's values of exchange n knows that everyone has read those of
/// n - 1: its own of that can go.
class StoreCommunicator : public Communicator {
 public:
  explicit StoreCommunicator(const Workers& workers) : workers_(workers), store_(core::detail::meet(workers, kWhere)) {}

  ~StoreCommunicator() override {
    if (broken_) return;
    try {
      store_->set(left(workers_.rank), {1});
      for (std::int64_t r = 0; workers_.rank == 0 && r < workers_.count; ++r) store_->get(left(r));
    } catch (const std::exception&) {  // who does not answer has nothing left to read
    }
  }

  std::int64_t rank() const override { return workers_.rank; }
  std::int64_t size() const override { return workers_.count; }

  at::Tensor all_gather(const at::Tensor& mine) override {
    const at::Tensor here = mine.cpu().contiguous();
    auto shape = here.sizes().vec();
    shape.insert(shape.begin(), workers_.count);
    at::Tensor all = at::empty(shape, here.options());
    const auto bytes = static_cast<std::int64_t>(here.nbytes());
    const std::span own(static_cast<const std::uint8_t*>(here.const_data_ptr()), here.nbytes());
    std::int64_t waiting_for = workers_.rank;
    try {
      give(own);
      for (std::int64_t r = 0; r < workers_.count; ++r) {
        waiting_for = r;
        const std::span to(static_cast<std::uint8_t*>(all.data_ptr()) + r * bytes, here.nbytes());
        if (r == workers_.rank)
          std::ranges::copy(own, to.begin());
        else
          take(r, to);
      }
      for (std::int64_t i = 0; i < given_before_; ++i) store_->deleteKey(key(next_ - 1, workers_.rank, i));
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      broken_ = true;
      const std::string what = error.what();
      fail(ErrorCode::io, kWhere, "expected rank {} to answer within {} s in exchange {} but got: {}; start all again",
           waiting_for, workers_.timeout_s, next_, what.substr(0, what.find('\n')));
    }
    given_before_ = pieces(bytes);
    ++next_;
    return all.to(mine.device());
  }

 private:
  static constexpr auto kWhere = "Communicator";
  static constexpr std::int64_t kPiece = 4 << 20;  // a store refuses values of more than 8 MiB
  static std::int64_t pieces(std::int64_t bytes) { return std::max<std::int64_t>((bytes + kPiece - 1) / kPiece, 1); }
  static std::string key(std::int64_t exchange, std::int64_t rank, std::int64_t piece) {
    return format_text("steer/exchange/{}/{}/{}", exchange, rank, piece);
  }

  /// The first piece says how many bytes there are in all.
  void give(std::span<const std::uint8_t> bytes) {
    for (std::int64_t i = 0; i < pieces(std::ssize(bytes)); ++i) {
      const auto piece = bytes.subspan(static_cast<std::size_t>(i * kPiece)).first(size_of(i, std::ssize(bytes)));
      const std::int64_t total = std::ssize(bytes);
      const std::size_t head = i == 0 ? sizeof total : 0;
      std::vector<std::uint8_t> value(head + piece.size());
      std::memcpy(value.data(), &total, head);
      std::ranges::copy(piece, value.begin() + static_cast<std::ptrdiff_t>(head));
      store_->set(key(next_, workers_.rank, i), value);
    }
  }

  void take(std::int64_t rank, std::span<std::uint8_t> bytes) {
    for (std::int64_t i = 0; i < pieces(std::ssize(bytes)); ++i) {
      const auto value = store_->get(key(next_, rank, i));
      const std::size_t head = i == 0 ? sizeof(std::int64_t) : 0;
      std::int64_t total = std::ssize(bytes);
      if (i == 0 && value.size() >= head) std::memcpy(&total, value.data(), head);
      require(total == std::ssize(bytes) && value.size() == head + size_of(i, total), ErrorCode::argument, kWhere,
              "expected {} bytes from rank {} in exchange {} but got {}; all processes make the same calls",
              bytes.size(), rank, next_, total);
      std::copy(value.begin() + static_cast<std::ptrdiff_t>(head), value.end(), bytes.begin() + i * kPiece);
    }
  }
  static std::size_t size_of(std::int64_t piece, std::int64_t total) {
    return static_cast<std::size_t>(std::min(kPiece, total - piece * kPiece));
  }

  static std::string left(std::int64_t rank) { return format_text("steer/exchange/left/{}", rank); }

  Workers workers_;
  c10::intrusive_ptr<c10d::TCPStore> store_;
  std::int64_t next_ = 0, given_before_ = 0;  ///< the exchange to come; pieces given in the last one
  bool broken_ = false;                       ///< somebody did not answer
};

}  // namespace

std::shared_ptr<Communicator> connect(const Workers& workers) {
  require(workers.count >= 1 && workers.rank >= 0 && workers.rank < workers.count, ErrorCode::argument, "connect",
          "expected a rank in [0, {}) but got {}", workers.count, workers.rank);
  return std::make_shared<StoreCommunicator>(workers);
}

}  // namespace steer
