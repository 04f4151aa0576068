#include <steer/sae/stream.hpp>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <numeric>
#include <utility>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/model/session.hpp>

namespace steer {
namespace {

constexpr std::string_view kStream = "stream_activations";

using Ids = std::vector<std::int64_t>;

class Stream {
 public:
  Stream(const Model& model, const HookPoint& point, std::size_t documents,
         std::function<std::vector<Ids>(std::size_t)> cut, const ActivationStreamOptions& options)
      : session_(model), point_(point), cut_(std::move(cut)), options_(options), order_(documents), next_(documents) {
    require(documents > 0, ErrorCode::argument, kStream, "expected at least one text but got none");
    require(options.context >= 2 && options.batch_sequences >= 1, ErrorCode::argument, kStream,
            "expected a context of 2 or more and at least one sequence a batch but got {} and {}", options.context,
            options.batch_sequences);
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    hook_ = session_.hook(point, [this](HookContext& at) { keep(at); }, {.read_only = true});
  }

  at::Tensor read(std::int64_t tokens) {
    const at::NoGradGuard no_grad;
    std::vector<Ids> pieces;
    std::int64_t rows = 0;
    while (rows < tokens && static_cast<std::int64_t>(pieces.size()) < options_.batch_sequences) {
      pieces.push_back(next_piece());
      rows += rows_of(pieces.back());
    }
    std::vector<StepInput> inputs;
    for (const auto& ids : pieces) inputs.push_back({session_.open(), ids, Phase::prompt});
    kept_.clear();
    if (point_.site == Site::ln_final)
      session_.step(inputs, Logits::last);
    else
      session_.step(inputs, Logits::none, {.first = 0, .last = point_.layer + 1, .residual = {}});
    for (const auto& input : inputs) session_.close(input.sequence);
    return at::cat(kept_);
  }

  void skip(std::int64_t tokens) {
    while (tokens > 0) tokens -= rows_of(next_piece());
    require(tokens == 0, ErrorCode::config, kStream,
            "the checkpoint was made with other texts or another context: {} tokens too many", -tokens);
  }

 private:
  std::int64_t rows_of(const Ids& piece) const {
    return static_cast<std::int64_t>(piece.size()) - (options_.skip_first ? 1 : 0);
  }

  Ids next_piece() {
    for (std::size_t barren = 0; pieces_.empty(); ++barren) {
      require(barren <= 2 * order_.size(), ErrorCode::argument, kStream,
              "expected a text of two tokens or more but got none");
      if (next_ == order_.size()) {
        Rng rng(derive_seed(options_.seed, "texts", pass_++));
        rng.shuffle(order_);
        next_ = 0;
      }
      for (auto& piece : cut_(order_[next_++]))
        if (piece.size() >= 2) pieces_.push_back(std::move(piece));
    }
    auto piece = std::move(pieces_.front());
    pieces_.pop_front();
    return piece;
  }

  void keep(const HookContext& at) {
    for (const auto& run : at.batch.runs) {
      const auto begin = run.begin + (options_.skip_first && run.position == 0 ? 1 : 0);
      if (begin < run.end)
        kept_.push_back(at.value.slice(0, begin, run.end).to(at::kCPU, at::kFloat, false, /*copy=*/true));
    }
  }

  Session session_;
  HookPoint point_;
  std::function<std::vector<Ids>(std::size_t)> cut_;
  ActivationStreamOptions options_;
  std::vector<std::size_t> order_;
  std::size_t next_;
  std::uint64_t pass_ = 0;
  std::deque<Ids> pieces_;
  std::vector<at::Tensor> kept_;
  HookHandle hook_;
};

ActivationSource source_of(std::shared_ptr<Stream> stream) {
  return {.read = [stream](std::int64_t tokens) { return stream->read(tokens); },
          .skip = [stream](std::int64_t tokens) { stream->skip(tokens); }};
}

}  // namespace

ActivationSource stream_activations(const Model& model, const HookPoint& point, std::vector<std::string> texts,
                                    const ActivationStreamOptions& options) {
  const auto& tokenizer = model.tokenizer();
  const auto count = texts.size();
  auto cut = [tokenizer, texts = std::move(texts), context = options.context](std::size_t i) {
    const auto ids = tokenizer.encode(texts[i], {.add_special = true, .parse_special = false});
    const auto bos = tokenizer.bos();
    const bool repeat = bos && !ids.empty() && ids.front() == *bos;
    std::vector<Ids> pieces;
    for (std::size_t begin = 0; begin < ids.size();) {
      const std::size_t repeated = repeat && begin > 0 ? 1 : 0;
      const auto end = std::min(ids.size(), begin + static_cast<std::size_t>(context) - repeated);
      Ids& piece = pieces.emplace_back(repeated + end - begin);
      if (repeated > 0) piece.front() = *bos;
      std::copy(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end),
                piece.begin() + static_cast<std::ptrdiff_t>(repeated));
      begin = end;
    }
    return pieces;
  };
  return source_of(std::make_shared<Stream>(model, point, count, std::move(cut), options));
}

ActivationSource stream_activations(const Model& model, const HookPoint& point,
                                    std::vector<std::vector<std::int64_t>> sequences,
                                    const ActivationStreamOptions& options) {
  const auto count = sequences.size();
  auto cut = [sequences = std::move(sequences), context = options.context](std::size_t i) {
    std::vector<Ids> pieces;
    const auto& ids = sequences[i];
    for (std::size_t begin = 0; begin < ids.size(); begin += static_cast<std::size_t>(context))
      pieces.emplace_back(
          ids.begin() + static_cast<std::ptrdiff_t>(begin),
          ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), begin + static_cast<std::size_t>(context))));
    return pieces;
  };
  return source_of(std::make_shared<Stream>(model, point, count, std::move(cut), options));
}

}  // namespace steer
