// The extension module: the library's own values and calls. What TransformerLens and SAELens users know by other names
// is Python on top of it (python/steer/).
#include "bind.hpp"

NB_MODULE(_core, m) {
  using namespace steer::python;
  // A hook may hold on to its session, and then both live until the process ends: no reason to tell a person so.
  nb::set_leak_warnings(false);
  m.doc() = "steer's C++ library. Use it through the package `steer`.";
  bind_core(m);
  bind_text(m);
  bind_model(m);
  bind_sae(m);
  bind_steering(m);
  bind_session(m);
  bind_generate(m);
  bind_features(m);
  bind_eval(m);
}
