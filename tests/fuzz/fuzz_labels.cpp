// An export of feature labels; or, where the bytes begin like one, a store of them.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include <steer/core/error.hpp>
#include <steer/sae/labels.hpp>

#include "fuzz_file.hpp"

namespace {

void walk(const steer::FeatureLabels& labels) {
  for (std::int64_t feature = 0; feature < std::min<std::int64_t>(labels.size(), 4096); ++feature) {
    const auto texts = labels.explanations(feature);
    if (labels.label(feature) != (texts.empty() ? std::string_view() : texts.front())) std::abort();
    for (const auto& number : {labels.max_activation(feature), labels.frac_nonzero(feature)})
      if (number && !std::isfinite(*number)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const auto store = "/dev/shm/fuzz_labels." + std::to_string(::getpid());
  const auto text = steer::fuzz::text_of(data, size);
  steer::fuzz::read_or_refuse<steer::Error>([&] {
    const auto file = steer::fuzz::file_of(text);
    walk(text.starts_with("steer") ? steer::FeatureLabels::open(file)
                                   : steer::FeatureLabels::import_neuronpedia(file, store));
  });
  return 0;
}
