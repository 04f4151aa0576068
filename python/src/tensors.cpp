// Tensors of C++ and Python are one object: torch's own functions hand it over. The only file that includes torch's
// Python headers, which take longer to compile than all others together.
#include <torch/csrc/autograd/python_variable.h>

namespace steer::python {

PyObject* wrap(const at::Tensor& tensor) noexcept;
bool unwrap(PyObject* object, at::Tensor& out) noexcept;

PyObject* wrap(const at::Tensor& tensor) noexcept {
  try {
    return THPVariable_Wrap(tensor);  // None for an undefined one
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "steer: torch could not wrap a tensor");
    return nullptr;
  }
}

bool unwrap(PyObject* object, at::Tensor& out) noexcept {
  try {
    if (!THPVariable_Check(object)) return false;
    out = THPVariable_Unpack(object);
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace steer::python
