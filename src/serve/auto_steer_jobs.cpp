// /v1/auto_steer: a search is a job. POST starts one, GET tells how it stands, /events streams that, DELETE cancels.

#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include <unistd.h>

#include "core/format_text.hpp"
#include "serve/auto_steer_search.hpp"
#include "serve/sse.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

constexpr std::size_t kMostJobs = 64;  ///< remembered; the oldest that has ended goes first

struct Job {
  std::string id, sae;
  SearchRequest request{};
  std::mutex mutex{};
  std::string status = "running", message{};  ///< then "done", "failed" or "cancelled"
  json result{};
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> shown{std::tmpfile(), &std::fclose};  ///< what `Progress` writes

  /// The last line of the search's progress.
  std::string progress() const {
    if (!shown) return {};
    std::string text(4096, '\0');
    const auto end = ::lseek(::fileno(shown.get()), 0, SEEK_END);
    const auto from = std::max<off_t>(0, end - 4096);
    const auto got = ::pread(::fileno(shown.get()), text.data(), text.size(), from);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    return text.substr(text.find_last_of("\r\n") + 1);
  }

  json to_json() {
    const std::lock_guard lock(mutex);
    json state{
        {"id", id},   {"object", "auto_steer"}, {"behaviour", request.behaviour}, {"mode", to_string(request.mode)},
        {"sae", sae}, {"status", status}};
    state["progress"] = progress();
    if (!message.empty()) state["error"] = message;
    if (!result.is_null()) state["result"] = result;
    return state;
  }

  void end(std::string how, json what, std::string why) {
    const std::lock_guard lock(mutex);
    if (status != "running") return;
    status = std::move(how), result = std::move(what), message = std::move(why);
  }
};

/// The jobs of one server. One that is cancelled ends at its next token.
class Jobs {
 public:
  ~Jobs() {
    for (auto& thread : threads_) thread.join();
  }

  std::shared_ptr<Job> start(Service& service, const ServedSae& served, SearchRequest request) {
    auto job = std::make_shared<Job>();
    job->id = random_id("as"), job->request = std::move(request), job->sae = served.name;
    const std::lock_guard lock(mutex_);
    forget();
    jobs_.push_back(job);
    threads_.emplace_back([&service, &served, job] { search(service, served, *job); });
    return job;
  }

  std::shared_ptr<Job> find(const std::string& id) {
    const std::lock_guard lock(mutex_);
    for (const auto& job : jobs_)
      if (job->id == id) return job;
    throw ApiError(404, "no search has this id", "id");
  }

 private:
  static void search(Service& service, const ServedSae& served, Job& job) {
    try {
      Progress progress;
      if (job.shown) progress = Progress("auto steer", 0, ProgressStyle::lines, job.shown.get());
      const auto still = [&] {
        const std::lock_guard lock(job.mutex);
        return job.status == "running" && !service.stopping;
      };
      const AutoSteerResult found = find_steering(service, served, job.request, progress, still);
      json result = found.to_json();
      result["explanation"] = found.explain();
      result["curve_svg"] = found.to_svg();
      result["steering_json"] = found.steering.to_json();
      job.end("done", std::move(result), {});
    } catch (...) {
      job.end("failed", {}, api_error(std::current_exception()).what());
    }
  }

  void forget() {
    for (auto job = jobs_.begin(); jobs_.size() >= kMostJobs && job != jobs_.end();)
      job = (*job)->to_json()["status"] == "running" ? job + 1 : jobs_.erase(job);
    if (jobs_.size() >= kMostJobs) throw ApiError(429, "too many searches are under way; try again");
  }

  std::mutex mutex_;
  std::vector<std::shared_ptr<Job>> jobs_;
  std::vector<std::thread> threads_;
};

std::vector<ChoiceQuestion> read_questions(Fields& fields) {
  std::vector<ChoiceQuestion> questions;
  if (!fields.has("questions")) return questions;
  const json& list = fields.array("questions");
  for (std::size_t i = 0; i < list.size(); ++i) {
    Fields entry(list[i], format_text("{}[{}]", fields.name("questions"), i));
    ChoiceQuestion question{.message = entry.text("message")};
    for (const json& choice : entry.array("choices")) {
      if (!choice.is_string() || choice.get_ref<const std::string&>().empty())
        entry.fail("choices", "expected \"choices\" to be texts as the answer names them: \"A\", \"B\", ...");
      question.choices.push_back(choice.get<std::string>());
    }
    if (question.choices.size() < 2) entry.fail("choices", "expected at least two \"choices\"");
    question.right = static_cast<std::size_t>(entry.integer("right", 0, std::ssize(question.choices) - 1));
    entry.done();
    questions.push_back(std::move(question));
  }
  return questions;
}

SearchRequest read_search(Fields& fields, const Service& service) {
  SearchRequest request{.behaviour = fields.text("behaviour")};
  if (request.behaviour.empty() || request.behaviour.size() > 1000)
    fields.fail("behaviour", "expected \"behaviour\" to be some words");
  const std::string mode = fields.text("mode", "published");
  if (mode != "published" && mode != "safe") fields.fail("mode", "expected \"mode\" of published or safe");
  request.mode = mode == "safe" ? AutoSteerMode::safe : AutoSteerMode::published;
  if (fields.has("prompts"))
    for (const json& prompt : fields.array("prompts")) {
      if (!prompt.is_string()) fields.fail("prompts", "expected \"prompts\" to be a list of user messages");
      request.prompts.push_back(prompt.get<std::string>());
    }
  if (fields.has("prompts") && request.prompts.size() < 4) fields.fail("prompts", "expected at least 4 \"prompts\"");
  request.max_tokens = fields.integer("max_tokens", 64, 1, service.model.config().context - 1);
  request.seed = static_cast<std::uint64_t>(fields.integer("seed", 42, 0, INT64_MAX));
  request.questions = read_questions(fields);
  if (request.mode == AutoSteerMode::safe && request.questions.empty())
    fields.fail(
        "questions",
        "mode \"safe\" needs \"questions\" that steering must not spoil: [{\"message\", \"choices\", \"right\"}]");
  if (fields.has("certificate")) {
    Fields proof = fields.object("certificate");
    CertificateSet& set = request.certificate;
    set.questions = read_questions(proof);
    set.opening = proof.text("opening", set.opening);
    set.closing = proof.text("closing", set.closing);
    set.accuracy_loss = proof.number("accuracy_loss", set.accuracy_loss, 1e-6, 1);
    set.format_loss = proof.number("format_loss", set.format_loss, 1e-6, 1);
    set.level = proof.number("level", set.level, 0.5, 0.9999);
    proof.done();
    if (request.mode != AutoSteerMode::safe || set.questions.empty())
      fields.fail("certificate", "\"certificate\" is for mode \"safe\" and needs \"questions\" of its own");
  }
  return request;
}

json start(Service& service, Jobs& jobs, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae(fields.text("sae", ""), "sae");
  SearchRequest search = read_search(fields, service);
  fields.done();
  return jobs.start(service, served, std::move(search))->to_json();
}

/// One event whenever something changed, the last with the result.
void follow(Job& job, EventStream& events, HttpStream& out) {
  std::string last;
  for (int still = 0;;) {
    const json state = job.to_json();
    const std::string text = dump(state);
    if (text != last || ++still > 50) events.send_text(text), last = text, still = 0;
    if (state["status"] != "running") return events.done();
    if (out.gone()) throw ApiError(499, "the client has gone");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

std::vector<Route> auto_steer_routes(Service& service) {
  const auto jobs = std::make_shared<Jobs>();
  return {{"POST", "/v1/auto_steer",
           [&service, jobs](const HttpRequest& r) {
             HttpReply reply = json_reply(start(service, *jobs, r));
             reply.status = 202;
             return reply;
           }},
          {"GET", "/v1/auto_steer/{}",
           [jobs](const HttpRequest& r) { return json_reply(jobs->find(r.captured[0])->to_json()); }},
          {"GET", "/v1/auto_steer/{}/events",
           [jobs](const HttpRequest& r) {
             return event_reply([job = jobs->find(r.captured[0])](EventStream& events, HttpStream& out) {
               follow(*job, events, out);
             });
           }},
          {"DELETE", "/v1/auto_steer/{}", [jobs](const HttpRequest& r) {
             const auto job = jobs->find(r.captured[0]);
             job->end("cancelled", {}, "cancelled by a request");
             return json_reply(job->to_json());
           }}};
}

}  // namespace steer::serve::detail
