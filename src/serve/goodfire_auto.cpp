// Goodfire's AutoSteer and AutoConditional: from words to edits, and to a condition.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include <steer/features/search.hpp>

#include "core/format_text.hpp"
#include "serve/auto_steer_search.hpp"
#include "serve/goodfire.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

constexpr std::size_t kMostKept = 64;
constexpr double kNever = std::numeric_limits<double>::infinity();  ///< steered also where it shows already
// The client waits a minute between bytes: spaces before the JSON keep it waiting. Until they begin, a failure has a
// status of its own; after that the answer ends without JSON.
constexpr std::chrono::seconds kQuiet{40}, kBetween{5};
constexpr std::chrono::milliseconds kPatience{100};  ///< between two looks at the client

/// What was found. The hosted service does not ask what random features would do: where they do as much, the set that
/// gains most all the same.
const Steering& steering_of(const AutoSteerResult& found) {
  if (found.verdict == AutoSteerVerdict::steered) return found.steering;
  if (found.verdict != AutoSteerVerdict::no_better_than_random)
    throw ApiError(400, format_text("Auto Steer found no steering ({}): {}", to_string(found.verdict), found.reason),
                   "specification", "auto_steer_" + std::string(to_string(found.verdict)));
  return found.trials[static_cast<std::size_t>(found.best_set)].steering;
}

/// The edits as the client writes them back in a controller.
json edits(const ServedSae& served, const AutoSteerResult& found) {
  json list = json::array();
  for (const Edit& edit : steering_of(found).edits()) {
    const auto feature = static_cast<std::int64_t>(edit.number("feature"));
    double raw = edit.number("value") * edit.strength;
    if (edit.unit == StrengthUnit::max_activation) raw *= edit.number("max_activation");
    list.push_back({goodfire_feature(served, feature), raw / goodfire_unit(served, feature)});
  }
  return {{"edits", std::move(list)}};
}

/// Results by their words. A search has one outcome, and programs ask for the same behaviour once for each method that
/// they compare.
class Kept {
 public:
  using Result = std::shared_ptr<const AutoSteerResult>;
  Result find(const std::string& behaviour) const {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(results_, behaviour, &std::pair<std::string, Result>::first);
    return found == results_.end() ? nullptr : found->second;
  }
  void add(const std::string& behaviour, Result result) {
    const std::lock_guard lock(mutex_);
    results_.emplace_back(behaviour, std::move(result));
    if (results_.size() > kMostKept) results_.pop_front();
  }

 private:
  mutable std::mutex mutex_;
  std::deque<std::pair<std::string, Result>> results_;
};

/// A search on a thread of its own, for as long as somebody waits for it.
class Search {
 public:
  Search(Service& service, const ServedSae& served, std::shared_ptr<Kept> kept, const std::string& behaviour)
      : answer_(std::async(std::launch::async, [this, &service, &served, kept = std::move(kept), behaviour] {
          const auto still = [&] { return !abandoned_ && !service.stopping; };
          const auto found = std::make_shared<const AutoSteerResult>(
              find_steering(service, served, {.behaviour = behaviour, .enough = kNever}, {}, still));
          kept->add(behaviour, found);
          return found;
        })) {}
  ~Search() { abandoned_ = true; }  // and the future waits for the thread
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  template <class Gone>
  bool ready_within(std::chrono::milliseconds time, const Gone& gone) const {
    for (const auto until = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < until;) {
      if (answer_.wait_for(kPatience) == std::future_status::ready) return true;
      if (gone()) throw ApiError(499, "the client has gone");
    }
    return false;
  }
  Kept::Result get() { return answer_.get(); }

 private:
  std::atomic<bool> abandoned_ = false;
  std::future<Kept::Result> answer_;  ///< last: its thread uses the members before it
};

HttpReply auto_steer(Service& service, const std::shared_ptr<Kept>& kept, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const std::string behaviour = fields.text("specification");
  fields.done();
  const auto note = std::make_shared<std::string>();
  const auto answer = [&served, note](const AutoSteerResult& found) {
    *note = format_text(R"("auto_steer":"{}")", to_string(found.verdict));
    return edits(served, found);
  };
  const auto reply_of = [&](const AutoSteerResult& found) {
    HttpReply reply = json_reply(answer(found));
    reply.note = note;
    return reply;
  };
  if (const auto known = kept->find(behaviour)) return reply_of(*known);
  const auto search = std::make_shared<Search>(service, served, kept, behaviour);
  if (search->ready_within(kQuiet, request.gone)) return reply_of(*search->get());
  HttpReply reply{.note = note};
  reply.stream = [search, answer](HttpStream& out) {
    try {
      while (!search->ready_within(kBetween, [&] { return out.gone(); }))
        if (!out.send(" ")) return;
      out.send(dump(answer(*search->get())));
    } catch (...) {  // what went wrong cannot be said any more
    }
  };
  return reply;
}

/// The feature whose label answers best, above a quarter of its maximum.
json auto_conditional(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const std::string subject = fields.text("specification");
  fields.done();
  const auto hits = search_labels(goodfire_labels(served), subject, 1);
  if (hits.empty())
    throw ApiError(400, format_text("no feature's label speaks of \"{}\"", subject.substr(0, 200)), "specification");
  const auto feature = hits[0].feature;
  const json left{{"features", json::array({goodfire_feature(served, feature, "uuid")})}};
  const json only{{"left_hand", left}, {"right_hand", goodfire_unit(served, feature) / 4}, {"operator", ">"}};
  return {{"conditional", {{"conditionals", json::array({only})}, {"operator", "AND"}}}};
}

}  // namespace

std::vector<Route> goodfire_auto_routes(Service& service) {
  return {{"POST", format_text("{}/features/auto-edits", kGoodfire),
           [&service, kept = std::make_shared<Kept>()](const HttpRequest& r) { return auto_steer(service, kept, r); }},
          {"POST", format_text("{}/features/auto-conditional", kGoodfire),
           [&service](const HttpRequest& r) { return json_reply(auto_conditional(service, r)); }}};
}

}  // namespace steer::serve::detail
