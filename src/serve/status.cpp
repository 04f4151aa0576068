// What is served, and how it does: /v1/models, /health, /metrics, /v1/steerings.

#include <nlohmann/json.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

json model_json(const Service& service, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", service.started},
          {"owned_by", "steer"},
          {"max_model_len", service.model.config().context}};
}

json models(const Service& service) {
  json list = json::array();
  for (const auto& name : service.options.names) list.push_back(model_json(service, name));
  for (const auto& [steering, edits] : service.options.steerings)
    list.push_back(model_json(service, service.name() + "+" + steering));
  return {{"object", "list"}, {"data", list}};
}

json model(const Service& service, const std::string& name) {
  for (const auto& known : service.options.names)
    if (known == name) return model_json(service, name);
  throw ApiError(404, "the model \"" + name + "\" does not exist", "model", "model_not_found");
}

json health(const Service& service) {
  const auto load = service.loop.load();
  return {{"status", "ok"}, {"rows_running", load.running}, {"rows_waiting", load.waiting}};
}

/// What a request's "steering" may name.
json steerings(const Service& service) {
  json result{{"steerings", json::array()}, {"vectors", json::array()}, {"saes", json::array()}};
  for (const auto& [name, steering] : service.options.steerings)
    result["steerings"].push_back({{"name", name}, {"describe", steering.describe()}});
  for (const auto& [name, set] : service.options.vectors) {
    json points = json::array();
    for (const auto& [point, vector] : set) points.push_back(point.name());
    result["vectors"].push_back({{"name", name}, {"points", points}});
  }
  for (const auto& served : service.options.saes) {
    const auto& config = served.sae.config();
    result["saes"].push_back({{"name", served.name},
                              {"hash", served.sae.hash()},
                              {"features", config.d_sae},
                              {"point", config.hook_in ? config.hook_in->name() : ""},
                              {"labels", served.labels.has_value()}});
  }
  return result;
}

}  // namespace

std::vector<Route> status_routes(Service& service) {
  return {
      {"GET", "/v1/models", [&service](const HttpRequest&) { return json_reply(models(service)); }},
      {"GET", "/v1/models/{}",
       [&service](const HttpRequest& request) { return json_reply(model(service, request.captured[0])); }},
      {"GET", "/v1/steerings", [&service](const HttpRequest&) { return json_reply(steerings(service)); }},
      {.method = "GET",
       .path = "/health",
       .handler = [&service](const HttpRequest&) { return json_reply(health(service)); },
       .open = true},
  };
}

}  // namespace steer::serve::detail
