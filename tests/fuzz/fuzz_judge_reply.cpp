// What a judge's model wrote: scores are in their range, whatever stands around them.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "eval/judge/judge_reply.hpp"
#include "io/strict_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace steer::eval::detail;
  static const ScoreForm form{.names = {"coherence", "humour"}, .least = {0, 0}, .most = {100, 100}};
  const std::string_view reply(reinterpret_cast<const char*>(data), size);
  if (const auto scores = read_scores(reply, form)) {
    if (scores->size() != 2) std::abort();
    for (const double score : *scores)
      if (!(score >= 0 && score <= 100)) std::abort();
  }
  if (const auto message = steer::io::detail::find_json(reply)) (void)message_text(*message);
  return 0;
}
