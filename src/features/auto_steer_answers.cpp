#include "features/auto_steer_answers.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"

namespace steer::features::detail {
namespace {

/// Answers are written after this many full batches: little is lost when killed, and little to the last rows of a
/// batch.
constexpr std::int64_t batches_a_part = 4;

std::string identity_of(const Model& model, const SamplingOptions& s) {
  return nlohmann::json{{"model", model.hash()}, {"temperature", s.temperature},
                        {"top_p", s.top_p},      {"top_k", s.top_k},
                        {"min_p", s.min_p},      {"repetition_penalty", s.repetition_penalty}}
      .dump();
}

std::vector<std::string> keys_of(std::span<const GenerateRequest> requests, std::int64_t max_tokens) {
  std::vector<std::string> keys;
  std::optional<Steering> last;
  std::string last_text;
  for (const auto& request : requests) {
    if (request.steering != last) {  // many in a row share one
      last = request.steering;
      last_text = last ? last->to_json().dump() : "";
    }
    ContentHasher hasher;
    hasher.update(std::string_view(reinterpret_cast<const char*>(request.ids.data()),
                                   request.ids.size() * sizeof request.ids[0]));
    keys.push_back(hasher.update(format_text("|{}|{}|", max_tokens, request.seed.value_or(0))).update(last_text).hex());
  }
  return keys;
}

std::string record_of(const GenerateResult& result) {
  return nlohmann::json{{"ids", result.ids},
                        {"text", result.text},
                        {"finish", to_string(result.finish)},
                        {"edited", result.audit.edited()}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

GenerateResult restore(const std::string& record) {
  const auto json = nlohmann::json::parse(record);
  GenerateResult result{.ids = json.at("ids"),
                        .text = json.at("text"),
                        .finish = parse_enum<FinishReason>(json.at("finish").get<std::string>(), "AutoSteer")};
  result.audit.edits.push_back({.edit = "all", .edited = json.at("edited")});
  return result;
}

}  // namespace

AnswerStore::AnswerStore(Model model, const AutoSteerOptions& options)
    : model_(std::move(model)),
      how_{.sampling = options.sampling, .batch = options.batch},
      progress_(options.progress),
      cancelled_(options.cancelled) {
  if (cancelled_)
    how_.on_token = [this](const TokenEvent&) {
      check_cancelled();
      return true;
    };
  if (options.journal.empty()) return;
  journal_ = std::make_unique<Journal>(options.journal, identity_of(model_, options.sampling));
  kept_ = journal_->records();
}

void AnswerStore::check_cancelled() const {
  if (cancelled_ && cancelled_()) fail(ErrorCode::cancelled, "AutoSteer::find", "the search was cancelled");
}

std::vector<GenerateResult> AnswerStore::generate(std::span<const GenerateRequest> requests, std::int64_t max_tokens,
                                                  std::string_view what) {
  GenerateOptions how = how_;
  how.max_tokens = max_tokens;
  how.progress = progress_.part(what, std::ssize(requests));
  check_cancelled();
  if (!journal_) return steer::generate(model_, requests, how);
  const auto keys = keys_of(requests, max_tokens);
  std::vector<GenerateResult> results(requests.size());
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (const auto found = kept_.find(keys[i]); found != kept_.end())
      results[i] = restore(found->second);
    else
      missing.push_back(i);
  }
  how.progress.resume_at(std::ssize(requests) - std::ssize(missing));
  const auto part = static_cast<std::size_t>(batches_a_part * how.batch);
  for (std::size_t begin = 0; begin < missing.size(); begin += part) {
    const auto some = std::span(missing).subspan(begin, std::min(part, missing.size() - begin));
    std::vector<GenerateRequest> asked;
    for (std::size_t i : some) asked.push_back(requests[i]);
    auto answered = steer::generate(model_, asked, how);
    std::vector<JournalEntry> entries;
    for (std::size_t n = 0; n < some.size(); ++n) {
      entries.push_back({keys[some[n]], record_of(answered[n])});
      results[some[n]] = std::move(answered[n]);
    }
    journal_->append(entries);
    for (auto& entry : entries) kept_.insert_or_assign(std::move(entry.key), std::move(entry.record));
  }
  return results;
}

}  // namespace steer::features::detail
