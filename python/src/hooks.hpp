#pragma once

#include <steer/model/hooks.hpp>

#include <memory>

#include "bind.hpp"

namespace steer::python {

/// A Python object that C++ may copy and drop without the GIL.
class Held {
 public:
  /// With the GIL.
  explicit Held(nb::object object);
  nb::handle get() const { return *object_; }

 private:
  std::shared_ptr<nb::object> object_;
};

/// How a hook sees activations.
enum class HookShape {
  flat,  ///< [tokens, width], as the library has them
  rows,  ///< [rows, tokens, width] and [rows, tokens, heads, d_head], as TransformerLens has them; a hook is called
         ///< once a row where rows bring different numbers of tokens, and for attention patterns [1, heads, queries,
         ///< keys]
};

/// A hook of the library's that calls `function(x, at)`. x is the activation itself: edited in place, or replaced by
/// what the function returns. What Python keeps of it (a tensor, a view, an array over its memory) stays as it was: the
/// session then goes on with a copy.
/// @param d_head  of the model, for HookShape::rows. @param read_only  x is a copy.
HookFunction hook_function(nb::object function, HookShape shape, std::int64_t d_head, bool read_only);

void bind_hooks(nb::module_& m);

}  // namespace steer::python
