#pragma once
// What the files of this folder share: casters, and how a long call minds Ctrl-C. One file binds one module of the
// library; `module.cpp` puts them together as `steer._core`.

#include <ATen/core/Tensor.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace steer::python {

namespace nb = nanobind;
using namespace nb::literals;

using Ids = std::vector<std::int64_t>;

/// A new reference to the `torch.Tensor` of a tensor, over the same memory; None for an undefined one.
PyObject* wrap(const at::Tensor& tensor) noexcept;
/// Takes the tensor out of a `torch.Tensor`. @return false for any other object.
bool unwrap(PyObject* object, at::Tensor& out) noexcept;

/// Asks Python, now and then, whether a signal came: Ctrl-C in the main thread ends a call that has let go of the GIL.
class Signals {
 public:
  /// @throws nb::python_error (KeyboardInterrupt) when a signal's handler raised. Cheap: looks 50 times a second.
  void check();

 private:
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now();
};

/// Lets go of the GIL while `function` runs.
template <class F>
auto without_gil(F&& function) {
  const nb::gil_scoped_release release;
  return function();
}

/// Python's own dict, list, ... of a JSON value, and back.
nb::object to_python(const nlohmann::json& json);
nlohmann::json to_json(nb::handle object);

/// A method whose body is a function of the package: module.function(self, ...). Give it a signature for the stubs.
inline auto in_python(const char* module, const char* function) {
  return [=](nb::handle self, nb::args arguments, nb::kwargs named) {
    return nb::module_::import_(module).attr(function)(self, *arguments, **named);
  };
}

void bind_core(nb::module_& m);
void bind_text(nb::module_& m);
void bind_model(nb::module_& m);
void bind_sae(nb::module_& m);
void bind_steering(nb::module_& m);
void bind_session(nb::module_& m);
void bind_generate(nb::module_& m);
void bind_features(nb::module_& m);
void bind_eval(nb::module_& m);

}  // namespace steer::python

namespace nanobind::detail {

template <>
struct type_caster<at::Tensor> {
  NB_TYPE_CASTER(at::Tensor, const_name("torch.Tensor"))
  bool from_python(handle source, std::uint32_t, cleanup_list*) noexcept {
    return steer::python::unwrap(source.ptr(), value);
  }
  static handle from_cpp(const at::Tensor& tensor, rv_policy, cleanup_list*) noexcept {
    return steer::python::wrap(tensor);
  }
};

}  // namespace nanobind::detail
