// One hook point's pass through libtorch's operators: other devices, other dtypes, and runs under autograd. The same
// instructions as run_cpu.cpp, all tokens as one tensor. Counting waits on the device until
// someone asks for the audit, so that a step does not.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/hypot.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <functional>

#include <steer/core/error.hpp>

#include "steering/runtime.hpp"

namespace steer::steering::detail {

template <>
struct Math<at::Tensor> {
  static at::Tensor larger(const at::Tensor& a, float b) { return a.clamp_min(b); }
  static at::Tensor larger(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }
  static at::Tensor smaller(const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }
  static at::Tensor where(const at::Tensor& c, const at::Tensor& a, float b) { return at::where(c, a, b); }
};

namespace {

using EncodeFunction = std::function<at::Tensor(const Sae&, const at::Tensor&, std::span<const std::int64_t> features)>;

/// The tokens of some runs at one point, as one tensor. Columns are [tokens, 1].
class TensorRunner {
 public:
  TensorRunner(const at::Tensor& h, const PointProgram& point, const at::Tensor& table, std::span<const Item> items,
               const HookContext& at, bool one_by_one, EncodeFunction encode)
      : point_(point),
        table_(table),
        items_(items),
        at_(at),
        one_by_one_(one_by_one),
        encode_(std::move(encode)),
        h_(h),
        arrival_(at::norm(h.detach(), 2, {1}, true)),
        changes_(point.slots.size(), at::full({h.size(0)}, kOutOfScope, h.options().requires_grad(false))) {}

  void run() {
    for (const Instruction& i : point_.instructions) run(i);
  }
  /// The activations after all instructions, f32.
  const at::Tensor& result() const { return h_; }
  /// [tokens, lines], as TokenWork::change.
  at::Tensor changes() const { return at::stack(changes_, 1); }

 private:
  /// bool: whom the member selects; undefined when nobody.
  at::Tensor selected(const Member& m) const {
    at::Tensor mask = at::empty({h_.size(0), 1}, at::kBool);
    bool* out = mask.data_ptr<bool>();
    bool any = false;
    for (const Item& item : items_)
      for (std::int64_t t = item.run->begin; t < item.run->end; ++t)
        any |= * out++ = selects(m.selection, *item.memory, *item.run, item.run->position + t - item.run->begin,
                                 at_.batch.ids[static_cast<std::size_t>(t)]);
    return any ? mask.to(h_.device()) : at::Tensor();
  }

  /// Notes by how much (|change|) a member moved its tokens.
  void note(const Member& m, const at::Tensor& mask, const at::Tensor& moved) {
    const at::Tensor size = moved.detach();
    const at::Tensor relative = at::where(arrival_ > 0, size / arrival_, (size > 0).to(at::kFloat));
    changes_[static_cast<std::size_t>(m.line)] = at::where(mask, relative, static_cast<double>(kOutOfScope)).squeeze(1);
  }

  void run(const Instruction& i) {
    std::vector<at::Tensor> masks;
    bool any = false;
    for (const Member& m : i.members) any |= masks.emplace_back(selected(m)).defined();
    if (!any) return;
    if (i.function) return function(i, masks.front());
    if (i.constant) return constant(i, masks.front());
    measure(i.normalization);
    const std::vector<at::Tensor> before = read(i);
    std::vector<at::Tensor> moved(before.size(), at::zeros_like(arrival_));
    for (std::size_t k = 0; k < i.members.size(); ++k)
      if (masks[k].defined()) change(i, i.members[k], masks[k], before, moved);
    write(i, before, moved);
  }

  void constant(const Instruction& i, const at::Tensor& mask) {
    const at::Tensor unit = i.members.front().change.by_norm ? arrival_ : at::ones_like(arrival_);
    h_ = at::where(mask, h_ + unit * table_[i.registers.front().write], h_);
    for (std::size_t k = 0; k < i.members.size(); ++k) note(i.members[k], mask, unit * static_cast<double>(i.sizes[k]));
  }

  /// What the SAE's input normalisation does to each token: x~ = (h - shift) / in, undone by * out.
  void measure(SaeNormalization kind) {
    const at::Tensor one = at::ones_like(arrival_);
    shift_ = at::zeros_like(arrival_);
    in_ = out_ = one;
    if (kind == SaeNormalization::constant_norm_rescale) {
      const at::Tensor n = at::norm(h_, 2, {1}, true);
      in_ = out_ = at::where(n > 0, n, one) / std::sqrt(static_cast<double>(h_.size(1)));
    } else if (kind == SaeNormalization::layer_norm) {
      shift_ = h_.mean(1, true);
      out_ = (h_ - shift_).std(1, /*unbiased=*/true, /*keepdim=*/true);
      in_ = out_ + 1e-5;
    }
  }

  /// The registers' values.
  std::vector<at::Tensor> read(const Instruction& i) const {
    std::vector<std::int64_t> rows, features;
    for (const Register& r : i.registers) {
      if (r.read >= 0) rows.push_back(r.read);
      if (r.reading == Reading::encode) features.push_back(r.feature);
    }
    at::Tensor dots, encoded;
    if (!rows.empty()) dots = at::matmul(h_, table_.index_select(0, at::tensor(rows).to(table_.device())).t());
    if (!features.empty()) encoded = encode_(*i.sae, h_, features);
    std::vector<at::Tensor> values;
    std::int64_t dot = 0, code = 0;
    for (const Register& r : i.registers) {
      if (r.reading == Reading::encode)
        values.push_back(encoded.narrow(1, code++, 1));
      else if (r.reading == Reading::norm)
        values.push_back(at::norm(h_, 2, {1}, true));
      else if (r.read >= 0)
        values.push_back(value_of(r, dots.narrow(1, dot++, 1), shift_, in_));
      else
        values.push_back(at::zeros_like(arrival_));
    }
    return values;
  }

  void change(const Instruction& i, const Member& m, const at::Tensor& mask, const std::vector<at::Tensor>& before,
              std::vector<at::Tensor>& moved) {
    const Change& c = m.change;
    const auto first = static_cast<std::size_t>(c.first), count = std::size_t{c.pair ? 2u : 1u};
    const at::Tensor reach = out_ * static_cast<double>(i.registers[first].write_norm);
    const at::Tensor unit = c.by_norm ? at::where(reach > 0, arrival_ / reach, 0.0) : at::ones_like(arrival_);
    at::Tensor x[2], squares;
    for (std::size_t k = 0; k < count; ++k) x[k] = before[first + k] + moved[first + k];
    for (std::size_t k = 0; k < count; ++k) {
      const at::Tensor d = at::where(mask, change_of(c, static_cast<int>(k), x, unit), 0.0);
      moved[first + k] = moved[first + k] + d;
      squares = squares.defined() ? at::hypot(squares, d) : d.abs();
    }
    note(m, mask, squares * reach);
  }

  /// Tokens that nothing moves keep their bits.
  void write(const Instruction& i, const std::vector<at::Tensor>& before, const std::vector<at::Tensor>& moved) {
    std::vector<at::Tensor> coefficients;
    std::vector<std::int64_t> rows;
    for (std::size_t k = 0; k < i.registers.size(); ++k) {
      if (i.registers[k].reading == Reading::norm) {
        const at::Tensor acts = at::logical_and(moved[k] != 0, before[k] > 0);
        const at::Tensor alpha = 1 + moved[k] / at::where(before[k] > 0, before[k], 1.0);
        h_ = at::where(acts, alpha * h_, h_);
      } else {
        coefficients.push_back(moved[k] * out_);
        rows.push_back(i.registers[k].write);
      }
    }
    if (rows.empty()) return;
    const at::Tensor c = at::cat(coefficients, 1);
    const at::Tensor w = table_.index_select(0, at::tensor(rows).to(table_.device()));
    h_ = at::where((c != 0).any(1, /*keepdim=*/true), h_ + at::matmul(c, w), h_);
  }

  /// A function sees one row at a time, and only the tokens selected.
  void function(const Instruction& i, const at::Tensor& mask) {
    const at::Tensor host = mask.to(at::kCPU);
    const bool* chosen = host.const_data_ptr<bool>();
    at::Tensor changed = h_;
    std::int64_t row = 0;
    for (const Item& item : items_) {
      std::vector<std::int64_t> rows, positions;
      for (std::int64_t t = item.run->begin; t < item.run->end; ++t, ++row)
        if (chosen[row]) rows.push_back(row), positions.push_back(item.run->position + t - item.run->begin);
      if (rows.empty()) continue;
      const std::size_t at_once = one_by_one_ && i.sae ? 1 : rows.size();
      for (std::size_t first = 0; first < rows.size(); first += at_once) {
        const auto part = [&](const std::vector<std::int64_t>& all) {
          return at::tensor(all).narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(at_once));
        };
        const at::Tensor index = part(rows).to(h_.device()), position = part(positions);
        const at::Tensor h = h_.index_select(0, index);
        const at::Tensor f =
            (*i.function)({.point = at_.point, .h = h, .position = position, .sequence = item.run->sequence});
        require(f.defined() && f.sizes() == h.sizes(), ErrorCode::shape, "Steering::custom",
                "expected a custom edit to return [{}, {}] but got {} dimensions", h.size(0), h.size(1),
                f.defined() ? f.dim() : 0);
        changed = changed.index_copy(0, index, f.to(h.options()));
      }
    }
    const Member& m = i.members.front();
    const float s = m.change.strength;
    const at::Tensor next = at::where(mask, s == 1 ? changed : h_ + (changed - h_) * s, h_);
    note(m, mask, at::norm(next.detach() - h_.detach(), 2, {1}, true));
    h_ = next;
  }

  const PointProgram& point_;
  const at::Tensor& table_;
  std::span<const Item> items_;
  const HookContext& at_;
  bool one_by_one_;  ///< SAEs run on one token at a time
  EncodeFunction encode_;
  at::Tensor h_, arrival_;
  at::Tensor shift_, in_, out_;  ///< of the instruction that runs
  std::vector<at::Tensor> changes_;
};

}  // namespace

void CompiledSteering::run_aten(HookContext& at, const PointProgram& point) {
  std::vector<std::int64_t> rows;
  for (const Item& item : items_)
    for (std::int64_t t = item.run->begin; t < item.run->end; ++t) rows.push_back(t);
  const at::Tensor index = at::tensor(rows).to(at.value.device());
  TensorRunner runner(at.value.index_select(0, index).to(at::kFloat), point, table_on(point, at.value.device()), items_,
                      at, batch_invariant_, [&](const Sae& sae, const at::Tensor& h, std::span<const std::int64_t> f) {
                        return encode(sae, h, f);
                      });
  runner.run();
  const at::Tensor result = runner.result().to(at.value.scalar_type());
  if (result.requires_grad() || at.value.requires_grad())
    at.value = at.value.index_copy(0, index, result);
  else
    at.value.index_copy_(0, index, result);
  const at::Tensor changes = runner.changes();
  std::int64_t begin = 0;
  for (const Item& item : items_) {
    const std::int64_t length = item.run->end - item.run->begin;
    item.memory->count_later(point, changes.narrow(0, begin, length));
    begin += length;
  }
}

}  // namespace steer::steering::detail
