#include "model/ops.hpp"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "core/crew.hpp"
#include "model/cpu_ops.hpp"

namespace steer::model::detail {
namespace {

/// Elements below which a second thread costs more than it saves.
constexpr std::int64_t kGrain = 8192;

/// Calls f(begin, end) over rows, on several threads where there is enough to do.
template <class F>
void over_rows(std::int64_t rows, std::int64_t width, const F& f) {
  core::detail::run_ranges(rows, kGrain / std::max<std::int64_t>(width, 1), f);
}

const float* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
float* mutable_data(at::Tensor& t) { return static_cast<float*>(t.data_ptr()); }

void normalise_rows(float* out, const float* x, const Norm& norm, bool with_gain, std::int64_t rows,
                    std::int64_t width) {
  const float* gain = with_gain ? data(norm.gain) : nullptr;
  const float* bias = with_gain ? data(norm.bias) : nullptr;
  const auto eps = static_cast<float>(norm.eps);
  over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
    if (norm.kind == NormKind::rms)
      cpu::rms_norm(out + begin * width, x + begin * width, gain, end - begin, width, eps);
    else
      cpu::layer_norm(out + begin * width, x + begin * width, gain, bias, end - begin, width, eps);
  });
}

at::Tensor normalised(const at::Tensor& x, const Norm& norm) {
  if (norm.kind == NormKind::rms) return x * at::rsqrt(x.square().mean(-1, true) + norm.eps);
  const auto centred = x - x.mean(-1, true);
  return centred * at::rsqrt(centred.square().mean(-1, true) + norm.eps);
}

}  // namespace

bool is_plain(const at::Tensor& x) {
  return x.defined() && x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         !(x.requires_grad() && at::GradMode::is_enabled());
}

void normalise(at::Tensor& out, const at::Tensor& x, const Norm& norm, bool with_gain) {
  if (is_plain(x) && is_plain(out)) {
    normalise_rows(mutable_data(out), data(x), norm, with_gain, x.size(0), x.size(1));
    return;
  }
  out = normalised(x, norm);
  if (with_gain) apply_gain(out, norm);
}

void apply_gain(at::Tensor& x, const Norm& norm) {
  if (is_plain(x)) {
    float* rows = mutable_data(x);
    over_rows(x.size(0), x.size(1), [&](std::int64_t begin, std::int64_t end) {
      cpu::multiply_add_rows(rows + begin * x.size(1), data(norm.gain), data(norm.bias), end - begin, x.size(1));
    });
    return;
  }
  x = x * norm.gain;
  if (norm.bias.defined()) x = x + norm.bias;
}

void normalise_heads(at::Tensor& x, const Norm& norm) {
  const std::int64_t width = norm.gain.size(0), rows = x.numel() / width;
  if (is_plain(x)) {
    normalise_rows(mutable_data(x), data(x), norm, true, rows, width);
    return;
  }
  x = (normalised(x.reshape({rows, width}), norm) * norm.gain).reshape(x.sizes());
}

void add(at::Tensor& x, const at::Tensor& y) {
  if (is_plain(x) && is_plain(y)) {
    float* to = mutable_data(x);
    const float* from = data(y);
    over_rows(x.numel(), 1,
              [&](std::int64_t begin, std::int64_t end) { cpu::add(to + begin, from + begin, end - begin); });
    return;
  }
  x = x + y;
}

void activate(at::Tensor& out, const at::Tensor& gate, const at::Tensor& up, ActivationKind kind) {
  if (is_plain(gate) && is_plain(out) && (!up.defined() || is_plain(up))) {
    float* to = mutable_data(out);
    // An activation is some ten times the work of a sum.
    core::detail::run_ranges(gate.numel(), kGrain / 4, [&](std::int64_t begin, std::int64_t end) {
      cpu::activate(to + begin, data(gate) + begin, up.defined() ? data(up) + begin : nullptr, end - begin, kind);
    });
    return;
  }
  switch (kind) {
    case ActivationKind::silu:
      out = at::silu(gate);
      break;
    case ActivationKind::gelu:
      out = at::gelu(gate);
      break;
    case ActivationKind::gelu_tanh:
      out = at::gelu(gate, "tanh");
      break;
    case ActivationKind::relu:
      out = at::relu(gate);
      break;
  }
  if (up.defined()) out = out * up;
}

void soft_cap(at::Tensor& x, double cap) {
  if (is_plain(x)) {
    float* rows = mutable_data(x);
    core::detail::run_ranges(x.numel(), kGrain / 4, [&](std::int64_t begin, std::int64_t end) {
      cpu::soft_cap(rows + begin, end - begin, static_cast<float>(cap));
    });
    return;
  }
  x = at::tanh(x / cap) * cap;
}

void rotate(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t d_head) {
  const std::int64_t half = cos.size(1), heads = x.size(1) / d_head;
  if (is_plain(x) && is_plain(cos)) {
    float* rows = mutable_data(x);
    over_rows(x.size(0), x.size(1), [&](std::int64_t begin, std::int64_t end) {
      cpu::rotate(rows + begin * x.size(1), data(cos) + begin * half, data(sin) + begin * half, end - begin, heads,
                  d_head, half);
    });
    return;
  }
  const auto by_head = x.reshape({x.size(0), heads, d_head});
  const auto a = by_head.narrow(2, 0, half), b = by_head.narrow(2, half, half);
  const auto c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  x = at::cat(std::vector<at::Tensor>{a * c - b * s, b * c + a * s, by_head.narrow(2, 2 * half, d_head - 2 * half)}, 2)
          .reshape(x.sizes());
}

}  // namespace steer::model::detail
