#pragma once
// The page at "/".

#include <vector>

#include "serve/http.hpp"

namespace steer::serve::detail {

struct Service;

/// src/serve/page.html as it was when this was built.
extern const char* const kPage;

std::vector<Route> page_routes(Service& service);

}  // namespace steer::serve::detail
