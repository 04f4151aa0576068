// Errors, threads, signals, JSON.
#include <nlohmann/json.hpp>

#include <ATen/Version.h>
#include <c10/util/Exception.h>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/core/version.hpp>

#include "bind.hpp"

namespace steer::python {

void Signals::check() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + std::chrono::milliseconds(20);
  const nb::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

nb::object to_python(const nlohmann::json& json) {
  using Kind = nlohmann::json::value_t;
  switch (json.type()) {
    case Kind::boolean:
      return nb::bool_(json.get<bool>());
    case Kind::number_integer:
      return nb::int_(json.get<std::int64_t>());
    case Kind::number_unsigned:
      return nb::int_(json.get<std::uint64_t>());
    case Kind::number_float:
      return nb::float_(json.get<double>());
    case Kind::string:
      return nb::cast(json.get_ref<const std::string&>());
    case Kind::array: {
      nb::list out;
      for (const auto& item : json) out.append(to_python(item));
      return out;
    }
    case Kind::object: {
      nb::dict out;
      for (const auto& [key, value] : json.items()) out[key.c_str()] = to_python(value);
      return out;
    }
    default:
      return nb::none();
  }
}

nlohmann::json to_json(nb::handle object) {
  const auto text = nb::module_::import_("json").attr("dumps")(object);
  return nlohmann::json::parse(nb::cast<std::string>(text));
}

namespace {

/// steer::Error becomes `steer.Error`, with its code; libtorch's own become RuntimeError, without a C++ trace.
void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    try {
      const nb::object type = nb::module_::import_("steer._errors").attr("Error");
      const nb::object made = type(std::string(error.what()), std::string(to_string(error.code())));
      PyErr_SetObject(type.ptr(), made.ptr());
    } catch (nb::python_error& failed) {
      failed.restore();
    }
  } catch (const c10::OutOfMemoryError& error) {
    PyErr_SetString(PyExc_MemoryError, error.what_without_backtrace());
  } catch (const c10::IndexError& error) {
    PyErr_SetString(PyExc_IndexError, error.what_without_backtrace());
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
  }
}

}  // namespace

void bind_core(nb::module_& m) {
  nb::register_exception_translator(translate);
  m.attr("__version__") = STEER_VERSION;
  m.def("set_threads", &set_threads, "count"_a,
        "Sets how many threads steer and torch use in this process; 0: one a core. The same as torch.set_num_threads.");
  m.def("threads", &threads, "How many threads products use now.");
}

}  // namespace steer::python
