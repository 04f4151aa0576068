// One hook point's pass on the CPU over f32 activations: each token is read and written in place, instruction after
// instruction, while it lies in the nearest cache.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include <steer/core/error.hpp>

#include "core/crew.hpp"
#include "sae/each_token.hpp"
#include "steering/kernels.hpp"
#include "steering/runtime.hpp"

namespace steer::steering::detail {
namespace {

using EncodeFunction = std::function<at::Tensor(const Sae&, const at::Tensor&, std::span<const std::int64_t> features)>;

/// Room for one token's registers; one per thread.
struct Scratch {
  std::vector<float> values, moved, coefficients;
  std::vector<const float*> rows;
  std::vector<std::size_t> which;
  void resize(std::size_t n) {
    if (values.size() >= n) return;
    values.resize(n);
    moved.resize(n);
    coefficients.resize(n);
    rows.resize(n);
    which.resize(n);
  }
};
thread_local Scratch scratch;

/// An SAE's input normalisation of one token: x~ = (x - shift) / in, undone by * out.
struct TokenNorm {
  float shift = 0, in = 1, out = 1;
};

TokenNorm measure(const float* h, std::int64_t width, SaeNormalization kind) {
  if (kind == SaeNormalization::none) return {};
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += h[i];
  const double mean = kind == SaeNormalization::layer_norm ? sum / static_cast<double>(width) : 0;
  for (std::int64_t i = 0; i < width; ++i) squares += (h[i] - mean) * (h[i] - mean);
  if (kind == SaeNormalization::constant_norm_rescale) {
    const double norm = squares > 0 ? std::sqrt(squares) : 1;
    const auto scale = static_cast<float>(norm / std::sqrt(static_cast<double>(width)));
    return {0, scale, scale};
  }
  const double deviation = std::sqrt(squares / static_cast<double>(width - 1));
  return {static_cast<float>(mean), static_cast<float>(deviation + 1e-5), static_cast<float>(deviation)};
}

/// Runs instructions on tokens of one table's width.
class TokenRunner {
 public:
  explicit TokenRunner(const PointProgram& point)
      : instructions_(point.instructions), rows_(point.table.first), width_(point.table.width), kernels_(kernels()) {}

  /// All instructions up to the next that needs many tokens at once, or the end.
  void advance(TokenWork& token) const {
    for (; token.next < instructions_.size() && !instructions_[token.next].bulk(); ++token.next) {
      const Instruction& i = instructions_[token.next];
      if (enter(i, token)) i.constant ? constant(i, token) : run(i, token, nullptr);
    }
  }

  /// Marks the members' lines; whether one selects the token.
  static bool enter(const Instruction& i, TokenWork& token) {
    bool any = false;
    for (const Member& m : i.members) {
      const bool selected = selects(m.selection, *token.item->memory, *token.item->run, token.position, token.id);
      token.change[m.line] = selected ? 0 : kOutOfScope;
      any |= selected;
    }
    return any;
  }

  /// Reads, changes and writes an instruction's registers for a token that it entered.
  /// @param encoded  the registers' values where a full encode gave them.
  void run(const Instruction& i, TokenWork& token, const float* encoded) const {
    Scratch& s = scratch;
    const std::size_t n = i.registers.size();
    s.resize(n);
    const TokenNorm norm = measure(token.h, width_, i.normalization);
    read(i, token, norm, encoded, s);
    std::fill_n(s.moved.begin(), n, 0.f);
    for (const Member& m : i.members)
      if (token.change[m.line] != kOutOfScope)
        token.change[m.line] = relative(change(i, m.change, norm, token, s), token);
    write(i, norm, token, s);
  }

  /// Measures |h| on arrival, once.
  void arrive(TokenWork& token) const {
    if (token.norm < 0) token.norm = std::sqrt(kernels_.moments(token.h, width_).sum_squares);
  }

  static float relative(float change, const TokenWork& token) {
    return token.norm > 0 ? change / token.norm : (change > 0 ? 1.f : 0.f);
  }

 private:
  void constant(const Instruction& i, TokenWork& token) const {
    const float* row = row_of(i.registers.front().write);
    const bool by_norm = i.members.front().change.by_norm;
    if (!by_norm && token.norm < 0) {
      token.norm = std::sqrt(kernels_.add_measured(token.h, row, width_));
    } else {
      arrive(token);
      const float unit = by_norm ? token.norm : 1;
      kernels_.add_scaled(token.h, &row, &unit, 1, width_);
    }
    for (std::size_t k = 0; k < i.members.size(); ++k)
      token.change[i.members[k].line] = by_norm ? (token.norm > 0 ? i.sizes[k] : 0.f) : relative(i.sizes[k], token);
    token.changed = true;
  }

  /// Fills the registers' values; measures |h| on arrival on the way.
  void read(const Instruction& i, TokenWork& token, const TokenNorm& norm, const float* encoded, Scratch& s) const {
    std::int64_t count = 0;
    for (std::size_t k = 0; k < i.registers.size(); ++k) {
      const Register& r = i.registers[k];
      if (r.reading != Reading::dot && r.reading != Reading::feature) continue;
      s.which[count] = k;
      s.rows[count++] = row_of(r.read);
    }
    if (count > 0 && token.norm < 0)
      token.norm = std::sqrt(kernels_.dots_measured(token.h, s.rows.data(), count, width_, s.coefficients.data()));
    else
      kernels_.dots(token.h, s.rows.data(), count, width_, s.coefficients.data());
    arrive(token);
    for (std::size_t k = 0; k < i.registers.size(); ++k)
      s.values[k] = i.registers[k].reading == Reading::encode ? encoded[k]
                    : i.registers[k].reading == Reading::norm ? length(token)
                                                              : 0;
    for (std::int64_t j = 0; j < count; ++j)
      s.values[s.which[j]] = value_of(i.registers[s.which[j]], s.coefficients[j], norm.shift, norm.in);
  }

  /// Changes a member's registers. @return the length of what that moves h by.
  static float change(const Instruction& i, const Change& c, const TokenNorm& norm, const TokenWork& token,
                      Scratch& s) {
    const auto first = static_cast<std::size_t>(c.first);
    const float reach = i.registers[first].write_norm * norm.out;  // what one unit of the register moves h by
    const float unit = !c.by_norm ? 1.f : reach > 0 ? token.norm / reach : 0.f;
    const float x[2] = {s.values[first] + s.moved[first], c.pair ? s.values[first + 1] + s.moved[first + 1] : 0.f};
    const float d[2] = {change_of(c, 0, x, unit), c.pair ? change_of(c, 1, x, unit) : 0.f};
    s.moved[first] += d[0];
    if (c.pair) s.moved[first + 1] += d[1];
    const double squares = static_cast<double>(d[0]) * d[0] + static_cast<double>(d[1]) * d[1];
    return (c.pair ? static_cast<float>(std::sqrt(squares)) : std::abs(d[0])) * reach;
  }

  void write(const Instruction& i, const TokenNorm& norm, TokenWork& token, Scratch& s) const {
    std::int64_t count = 0;
    for (std::size_t k = 0; k < i.registers.size(); ++k) {
      const float c = s.moved[k] * norm.out;
      if (c == 0) continue;
      if (i.registers[k].reading == Reading::norm) {
        if (s.values[k] > 0) kernels_.scale(token.h, 1 + c / s.values[k], width_);
      } else {
        s.coefficients[count] = c;
        s.rows[count++] = row_of(i.registers[k].write);
      }
      token.changed = true;
    }
    if (count > 0) kernels_.add_scaled(token.h, s.rows.data(), s.coefficients.data(), count, width_);
  }

  /// |h| now; to the bit what it was on arrival while nothing has changed it.
  float length(const TokenWork& token) const {
    return token.changed ? std::sqrt(kernels_.moments(token.h, width_).sum_squares) : token.norm;
  }

  const float* row_of(int index) const { return rows_ + index * width_; }

  const std::vector<Instruction>& instructions_;
  const float* rows_;  ///< of the point's table
  std::int64_t width_;
  const Kernels& kernels_;
};

at::Tensor gathered(std::span<TokenWork* const> tokens, std::int64_t width) {
  at::Tensor h = at::empty({static_cast<std::int64_t>(tokens.size()), width});
  for (std::size_t i = 0; i < tokens.size(); ++i)
    std::memcpy(h.data_ptr<float>() + static_cast<std::int64_t>(i) * width, tokens[i]->h,
                static_cast<std::size_t>(width) * sizeof(float));
  return h;
}

/// h += s (f(h) - h) for each token; at s = 1 f(h) itself.
void run_function(const Instruction& i, std::span<TokenWork* const> tokens, const at::Tensor& h,
                  const HookPoint& point) {
  const std::int64_t width = h.size(1);
  at::Tensor positions = at::empty({h.size(0)}, at::kLong);
  for (std::size_t t = 0; t < tokens.size(); ++t) positions.data_ptr<std::int64_t>()[t] = tokens[t]->position;
  at::Tensor f = (*i.function)(
      {.point = point, .h = h.clone(), .position = positions, .sequence = tokens.front()->item->run->sequence});
  require(f.defined() && f.sizes() == h.sizes(), ErrorCode::shape, "Steering::custom",
          "expected a custom edit to return [{}, {}] but got {} dimensions and {} elements", h.size(0), h.size(1),
          f.defined() ? f.dim() : 0, f.defined() ? f.numel() : 0);
  f = f.to(at::TensorOptions(at::kCPU).dtype(at::kFloat));
  const float s = i.members.front().change.strength;
  const at::Tensor result = s == 1 ? f.contiguous() : (h + s * (f - h)).contiguous();
  const at::Tensor moved = result - h;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const float m = std::sqrt(
        kernels().moments(moved.const_data_ptr<float>() + static_cast<std::int64_t>(t) * width, width).sum_squares);
    tokens[t]->change[i.members.front().line] = TokenRunner::relative(m, *tokens[t]);
    if (m == 0) continue;
    std::memcpy(tokens[t]->h, result.const_data_ptr<float>() + static_cast<std::int64_t>(t) * width,
                static_cast<std::size_t>(width) * sizeof(float));
    tokens[t]->changed = true;
  }
}

/// The registers' values where a full encode gives them, [tokens, registers].
at::Tensor encoded_registers(const Instruction& i, const at::Tensor& h, const EncodeFunction& encode) {
  std::vector<std::int64_t> features;
  for (const Register& r : i.registers) features.push_back(r.feature);
  return encode(*i.sae, h, features).contiguous();
}

/// Runs the instruction that `tokens`, all at it, wait for; those it selects are of whatever rows.
void run_bulk(const Instruction& i, std::span<TokenWork> tokens, const TokenRunner& runner, std::int64_t width,
              const HookPoint& point, bool each_alone, const EncodeFunction& encode) {
  const at::NoGradGuard no_grad;
  std::vector<TokenWork*> selected;
  for (TokenWork& token : tokens) {
    ++token.next;
    if (!TokenRunner::enter(i, token)) continue;
    runner.arrive(token);
    selected.push_back(&token);
  }
  if (selected.empty()) return;
  if (i.function) {  // sees one row at a time
    const sae::detail::EachTokenAlone alone(each_alone);
    for (auto begin = selected.begin(); begin != selected.end();) {
      const auto end =
          std::find_if(begin, selected.end(), [&](const TokenWork* t) { return t->item != (*begin)->item; });
      const std::span<TokenWork* const> row(begin, end);
      run_function(i, row, gathered(row, width), point);
      begin = end;
    }
    return;
  }
  const at::Tensor values = encoded_registers(i, gathered(selected, width), encode);
  for (std::size_t t = 0; t < selected.size(); ++t)
    runner.run(i, *selected[t], values.const_data_ptr<float>() + t * i.registers.size());
}

}  // namespace

void CompiledSteering::run_cpu(HookContext& at, const PointProgram& point) {
  const TokenRunner runner(point);
  const auto lines = static_cast<std::int64_t>(point.slots.size()), width = point.table.width;
  std::int64_t count = 0;
  for (const Item& item : items_) count += item.run->end - item.run->begin;
  // A decode step's few tokens stand on the stack, which is in the nearest cache whoever ran before.
  c10::SmallVector<float, 64> changes(static_cast<std::size_t>(count * lines), kOutOfScope);
  c10::SmallVector<TokenWork, 16> tokens;
  tokens.reserve(static_cast<std::size_t>(count));
  float* change = changes.data();
  float* const h = at.value.data_ptr<float>();
  const std::int64_t stride = at.value.stride(0);
  for (const Item& item : items_)
    for (std::int64_t t = item.run->begin; t < item.run->end; ++t, change += lines) {
      TokenWork& token = tokens.emplace_back();
      token.h = h + t * stride;
      token.position = item.run->position + t - item.run->begin;
      token.id = at.batch.ids[static_cast<std::size_t>(t)];
      token.item = &item;
      token.change = change;
    }
  // Below some 100 microseconds of work a second thread costs more than it brings.
  constexpr std::int64_t kFloatsPerThread = 1 << 20;
  const std::int64_t floats = width * (2 * static_cast<std::int64_t>(point.instructions.size()) + 1);  // of a token
  const auto advance = [&] {
    if (count * floats <= kFloatsPerThread) {
      for (TokenWork& token : tokens) runner.advance(token);
      return;
    }
    const std::int64_t grain = std::max<std::int64_t>(1, kFloatsPerThread / floats);
    TokenWork* const work = tokens.data();
    core::detail::run_shares(count, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) runner.advance(work[i]);
    });
  };
  advance();
  // All tokens wait at the same instruction now: the next that needs many of them at once.
  while (!tokens.empty() && tokens.front().next < point.instructions.size()) {
    run_bulk(point.instructions[tokens.front().next], tokens, runner, width, at.point, batch_invariant_,
             [&](const Sae& sae, const at::Tensor& x, std::span<const std::int64_t> features) {
               return encode(sae, x, features).to(at::kCPU);
             });
    advance();
  }
  const float* counted = changes.data();
  for (const Item& item : items_) {
    const std::int64_t length = item.run->end - item.run->begin;
    item.memory->count(point, length, counted);
    counted += length * lines;
  }
}

}  // namespace steer::steering::detail
