// Prompts on their own: logits, log-probabilities, recorded activations.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <limits>

#include "core/format_text.hpp"
#include "model/activation_match.hpp"
#include "model/log_probability.hpp"
#include "model/session_impl.hpp"

namespace steer {

at::Tensor Session::forward(std::span<const std::int64_t> ids, const ForwardOptions& options) {
  constexpr auto kWhere = "Session::forward";
  const Impl::Use use(*impl_, kWhere);
  require((options.logits == Logits::positions) == !options.positions.empty(), ErrorCode::argument, kWhere,
          "expected positions exactly with Logits::positions but got {} of them", options.positions.size());
  const auto tokens = static_cast<std::int64_t>(ids.size());
  std::vector<std::int64_t> positions;
  for (std::int64_t p : options.positions) {
    require(p >= -tokens && p < tokens, ErrorCode::argument, kWhere, "expected positions in [{}, {}) but got {}",
            -tokens, tokens, p);
    positions.push_back(p < 0 ? p + tokens : p);
    require(positions.size() == 1 || positions.back() > positions[positions.size() - 2], ErrorCode::argument, kWhere,
            "expected positions in ascending order but got {}", fmt::join(options.positions, ", "));
  }
  const Impl::Scratch scratch(*impl_, options.steering);
  const StepInput input{scratch.sequence(), ids, Phase::prompt};
  // A gradient does not cross chunks.
  const bool whole = at::GradMode::is_enabled() && impl_->hooks->any_editing();
  return impl_->step({&input, 1}, options.logits, {},
                     whole ? std::numeric_limits<std::int32_t>::max() : impl_->options.prompt_chunk, positions);
}

LogProbabilities Session::log_probabilities(std::span<const std::int64_t> ids, const LogProbabilityOptions& options) {
  constexpr auto kWhere = "Session::log_probabilities";
  const Impl::Use use(*impl_, kWhere);
  const at::NoGradGuard no_grad;
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const std::int64_t end = options.end < 0 ? tokens : options.end, vocabulary = model().config().vocab_size;
  require(options.begin >= 1 && options.begin < end && end <= tokens, ErrorCode::argument, kWhere,
          "expected a range within [1, {}) but got [{}, {})", tokens, options.begin, end);
  require(options.top >= 0 && options.top <= vocabulary, ErrorCode::argument, kWhere,
          "expected top in [0, {}] but got {}", vocabulary, options.top);
  const Impl::Scratch scratch(*impl_, options.steering);
  LogProbabilities result;
  const auto run = [&](std::int64_t from, std::int64_t to, Logits logits) {
    const auto part = ids.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
    const StepInput input{scratch.sequence(), part, Phase::prompt, /*prompt_left=*/tokens - to};
    return impl_->step({&input, 1}, logits, {}, impl_->options.prompt_chunk);
  };
  if (options.begin > 1) run(0, options.begin - 1, Logits::none);
  constexpr std::int64_t logits_at_once = std::int64_t{1} << 25;
  const std::int64_t block = std::clamp<std::int64_t>(logits_at_once / vocabulary, 1, impl_->options.prompt_chunk);
  for (std::int64_t from = options.begin - 1; from < end - 1; from += block) {
    const std::int64_t to = std::min(from + block, end - 1);
    const at::Tensor logits = run(from, to, Logits::all).to(at::kCPU).contiguous();
    for (std::int64_t t = from; t < to; ++t)
      model::detail::append_log_probabilities(result, logits[t - from], ids[static_cast<std::size_t>(t + 1)],
                                              options.top, kWhere);
  }
  return result;
}

ActivationCache Session::run_with_cache(std::span<const std::int64_t> ids,
                                        std::initializer_list<std::string_view> patterns, const CacheOptions& options) {
  return run_with_cache(ids, std::vector<std::string>(patterns.begin(), patterns.end()), options);
}
ActivationCache Session::run_with_cache(std::span<const std::int64_t> ids, std::span<const std::string> patterns,
                                        const CacheOptions& options) {
  const std::vector<std::int64_t> prompt(ids.begin(), ids.end());
  return std::move(run_with_cache(std::span(&prompt, 1), patterns, options).front());
}
std::vector<ActivationCache> Session::run_with_cache(std::span<const std::vector<std::int64_t>> prompts,
                                                     std::initializer_list<std::string_view> patterns,
                                                     const CacheOptions& options) {
  return run_with_cache(prompts, std::vector<std::string>(patterns.begin(), patterns.end()), options);
}

std::vector<ActivationCache> Session::run_with_cache(std::span<const std::vector<std::int64_t>> prompts,
                                                     std::span<const std::string> patterns,
                                                     const CacheOptions& options) {
  constexpr auto kWhere = "Session::run_with_cache";
  const Impl::Use use(*impl_, kWhere);
  const std::int64_t n_layers = model().config().n_layers, stop = options.stop_after_layer;
  require(stop >= -1 && stop < n_layers, ErrorCode::argument, kWhere,
          "expected stop_after_layer in [0, {}) or -1 but got {}", n_layers, stop);
  require(options.logits != Logits::positions, ErrorCode::argument, kWhere,
          "expected Logits none, last or all but got positions, which Session::forward takes");
  const std::int64_t last = stop < 0 ? n_layers : stop + 1;
  std::vector<HookPoint> reached = impl_->hooks->points();
  std::erase_if(reached,
                [&](const HookPoint& p) { return p.layer >= last || (p.site == Site::ln_final && last < n_layers); });
  const std::vector<bool> chosen = model::detail::matching(
      reached, patterns, last < n_layers ? format_text(" up to layer {}", stop) : std::string(), kWhere);

  // By point and prompt: what each chunk gave.
  std::vector<std::vector<std::vector<at::Tensor>>> pieces(reached.size());
  std::vector<std::unique_ptr<Impl::Scratch>> scratch;
  std::map<SequenceId, std::size_t> number;
  std::vector<StepInput> inputs;
  for (const auto& ids : prompts) {
    scratch.push_back(std::make_unique<Impl::Scratch>(*impl_, options.steering));
    number[scratch.back()->sequence()] = inputs.size();
    inputs.push_back({scratch.back()->sequence(), ids, Phase::prompt});
  }
  std::vector<std::shared_ptr<HookHandle::Registration>> recorders;
  const auto remove_all = [&](void*) {
    for (const auto& recorder : recorders) impl_->hooks->remove(*recorder);
  };
  const std::unique_ptr<void, decltype(remove_all)> removal(&recorders, remove_all);
  bool whole = at::GradMode::is_enabled() && impl_->hooks->any_editing();  // a gradient does not cross chunks
  for (std::size_t p = 0; p < reached.size(); ++p) {
    if (!chosen[p]) continue;
    pieces[p].resize(prompts.size());
    const bool pattern = reached[p].site == Site::attn_pattern;
    whole |= pattern;
    const auto record = [&of_prompt = pieces[p], &number, pattern](HookContext& at) {
      for (const TokenRun& run : at.batch.runs) {
        const at::Tensor own = pattern ? at.value : at.value.slice(0, run.begin, run.end);
        of_prompt[number.at(run.sequence)].push_back(own.clone());
      }
    };
    recorders.push_back(
        impl_->hooks->add(reached[p], record, {.read_only = true, .order = std::numeric_limits<int>::max()}));
  }
  const at::Tensor logits = impl_->step(inputs, options.logits, {.last = last},
                                        whole ? std::numeric_limits<std::int32_t>::max() : impl_->options.prompt_chunk);

  std::vector<ActivationCache> caches(prompts.size());
  std::int64_t row = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (std::size_t p = 0; p < reached.size(); ++p)
      if (chosen[p])
        caches[i].values_.emplace_back(reached[p], pieces[p][i].size() == 1 ? pieces[p][i][0] : at::cat(pieces[p][i]));
    if (!logits.defined()) continue;
    const std::int64_t rows = options.logits == Logits::last ? 1 : static_cast<std::int64_t>(prompts[i].size());
    caches[i].logits = logits.slice(0, row, row + rows);
    row += rows;
  }
  return caches;
}

const at::Tensor& ActivationCache::operator[](const HookPoint& point) const {
  std::string names;
  for (const auto& [recorded, value] : values_) {
    if (recorded == point) return value;
    names += (names.empty() ? "" : ", ") + recorded.name();
  }
  fail(ErrorCode::argument, "ActivationCache",
       "expected one of the recorded activations ({}) but got \"{}\"; add it to the patterns",
       names.empty() ? "none" : names, point.name());
}
bool ActivationCache::contains(const HookPoint& point) const {
  return std::any_of(values_.begin(), values_.end(), [&](const auto& entry) { return entry.first == point; });
}

}  // namespace steer
