// What an extension does: it takes a tensor's memory, gives one back, and turns errors into its caller's.
#include <ATen/Functions.h>

#include <cstdio>

#include <steer/core/error.hpp>
#include <steer/generate/generate.hpp>
#include <steer/steering/steering.hpp>

extern "C" {

/// Logits of the last of `count` tokens, written to `out` [vocab]; the size of the vocabulary, or -1 with `error` set.
long probe_logits(const char* path, const long* ids, long count, float* out, char* error, long room) {
  try {
    const auto model = steer::Model::load(path);
    steer::Session session(model);
    const auto row = session.forward(std::vector<std::int64_t>(ids, ids + count))[-1].contiguous();
    if (out) std::copy_n(row.data_ptr<float>(), row.numel(), out);
    return row.numel();
  } catch (const steer::Error& failure) {
    std::snprintf(error, static_cast<std::size_t>(room), "%s", failure.what());
    return -1;
  }
}
}
