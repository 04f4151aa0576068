// Python functions as hooks.
#include "hooks.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>
#include <steer/core/error.hpp>

#include <utility>

namespace steer::python {

Held::Held(nb::object object)
    : object_(new nb::object(std::move(object)), [](nb::object* held) {
        const nb::gil_scoped_acquire gil;
        delete held;
      }) {}

namespace {

/// What a hook is told of its call. Speaks for itself only while the call lasts.
struct HookCall {
  HookPoint point;
  std::span<const std::int64_t> ids;
  std::span<const TokenRun> runs;
  bool over = false;

  void require_running() const {
    require(!over, ErrorCode::argument, "hook",
            "expected to be asked for tokens during the hook's call but got asked "
            "after it; keep what you need of `at`, not `at` itself");
  }
};

/// Marks a call as over, also when it ends in an exception.
struct Ending {
  HookCall& call;
  ~Ending() { call.over = true; }
};

std::string describe(const at::Tensor& t) {
  return fmt::format("[{}] {} on {}", fmt::join(t.sizes(), ", "), at::toString(t.scalar_type()), t.device().str());
}

/// The Python function's side of one hook.
struct Caller {
  Held function;
  HookShape shape;
  std::int64_t d_head;
  bool read_only;

  void operator()(HookContext& at) const {
    const nb::gil_scoped_acquire gil;
    if (shape == HookShape::flat) return call(at, at.value, at.value.sizes(), at.batch.runs, at.batch.ids);
    if (at.point.site == Site::attn_pattern)
      return call(at, at.value, widened({1}, at.value.sizes()), at.batch.runs, at.batch.ids);
    const auto runs = at.batch.runs;
    const std::int64_t length = runs[0].end - runs[0].begin;
    if (length * std::ssize(runs) == at.batch.size() &&
        std::ranges::all_of(runs, [&](const TokenRun& run) { return run.end - run.begin == length; }))
      return call(at, at.value, row_shape(at, std::ssize(runs), length), runs, at.batch.ids);
    for (const TokenRun& run : runs) {
      const std::int64_t tokens = run.end - run.begin;
      const auto ids = at.batch.ids.subspan(static_cast<std::size_t>(run.begin), static_cast<std::size_t>(tokens));
      call(at, at.value.slice(0, run.begin, run.end), row_shape(at, 1, tokens), {&run, 1}, ids);
    }
  }

  std::vector<std::int64_t> row_shape(const HookContext& at, std::int64_t rows, std::int64_t tokens) const {
    const std::int64_t width = at.value.size(1);
    const Site site = at.point.site;
    if (site == Site::attn_q || site == Site::attn_k || site == Site::attn_v || site == Site::attn_z)
      return {rows, tokens, width / d_head, d_head};
    return {rows, tokens, width};
  }

  static std::vector<std::int64_t> widened(std::vector<std::int64_t> front, at::IntArrayRef back) {
    front.insert(front.end(), back.begin(), back.end());
    return front;
  }

  /// Calls the function with `part` of the value, or all of it, seen as `sizes`.
  void call(HookContext& at, const at::Tensor& part, at::IntArrayRef sizes, std::span<const TokenRun> runs,
            std::span<const std::int64_t> ids) const {
    const bool copied = read_only && !at.value.requires_grad();
    const std::size_t holders = at.value.storage().use_count();
    at::Tensor x = copied ? part.clone() : part;
    x = x.view(sizes);
    nb::object result;
    {
      const nb::object seen = nb::steal(wrap(x)), about = nb::cast(HookCall{at.point, ids, runs});
      const Ending ending{nb::cast<HookCall&>(about)};
      result = function.get()(seen, about);
      if (result.is(seen)) result = nb::none();
    }
    if (!result.is_none()) return replace(at, part, x, result);
    if (read_only) return;
    // `x` holds the memory once, and so does `part` where it is a view of its own.
    const std::size_t own = part.is_same(at.value) ? 1 : 2;
    if (x.use_count() > 1 || at.value.storage().use_count() > holders + own) at.value = at.value.clone();
  }

  void replace(HookContext& at, const at::Tensor& part, const at::Tensor& x, nb::handle result) const {
    at::Tensor returned;
    require(unwrap(result.ptr(), returned), ErrorCode::argument, "hook",
            "expected the hook at {} to return a tensor or None but got {}", at.point.name(),
            nb::repr(result.type()).c_str());
    require(
        returned.sizes() == x.sizes() && returned.scalar_type() == x.scalar_type() && returned.device() == x.device(),
        ErrorCode::shape, "hook", "expected the hook at {} to return {} but got {}; keep shape, dtype and device",
        at.point.name(), describe(x), describe(returned));
    require(!read_only, ErrorCode::argument, "hook",
            "expected the read-only hook at {} to return None but got a tensor; register it without read_only",
            at.point.name());
    if (part.is_same(at.value))
      at.value = returned.reshape(at.value.sizes());
    else
      part.copy_(returned.reshape(part.sizes()));
  }
};

template <class F>
Ids each_token(const HookCall& call, F&& value) {
  call.require_running();
  Ids out;
  for (const TokenRun& run : call.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t) out.push_back(value(run, t - run.begin));
  return out;
}

}  // namespace

HookFunction hook_function(nb::object function, HookShape shape, std::int64_t d_head, bool read_only) {
  return Caller{Held(std::move(function)), shape, d_head, read_only};
}

void bind_hooks(nb::module_& m) {
  nb::class_<HookCall>(m, "HookCall",
                       "What a hook is told besides the activation: where it is, and whose tokens these are.")
      .def_prop_ro(
          "name", [](const HookCall& c) { return c.point.name(); }, "The hook point's TransformerLens name.")
      .def(
          "layer", [](const HookCall& c) { return c.point.layer; }, "The block's index.")
      .def_prop_ro(
          "site", [](const HookCall& c) { return std::string(to_string(c.point.site)); },
          "Without the layer: \"resid_post\".")
      .def_prop_ro(
          "ids",
          [](const HookCall& c) {
            c.require_running();
            return Ids(c.ids.begin(), c.ids.end());
          },
          "Each token's id.")
      .def_prop_ro(
          "positions",
          [](const HookCall& c) {
            return each_token(c, [](const TokenRun& run, std::int64_t i) { return run.position + i; });
          },
          "Each token's position in its sequence.")
      .def_prop_ro(
          "sequences",
          [](const HookCall& c) {
            return each_token(c, [](const TokenRun& run, std::int64_t) { return std::int64_t{run.sequence}; });
          },
          "Each token's sequence.")
      .def_prop_ro(
          "generated",
          [](const HookCall& c) {
            c.require_running();
            std::vector<bool> out;
            for (const TokenRun& run : c.runs)
              out.insert(out.end(), static_cast<std::size_t>(run.end - run.begin), run.phase == Phase::generated);
            return out;
          },
          "Whether each token was generated, not part of the prompt.")
      .def("__repr__", [](const HookCall& c) { return "HookCall('" + c.point.name() + "')"; });
}

}  // namespace steer::python
