// What the server's clients are compared with: log p of the tails of texts, by `score`.
//
//   score_texts MODEL SAE < lines of {"ids": [..], "begin": B, "feature": F, "strength": S} > sums, one a line

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <steer/generate/score.hpp>
#include <steer/sae/sae.hpp>

int main(int, char** argv) {
  const auto model = steer::Model::load(argv[1]);
  const auto sae = steer::Sae::load(argv[2]);
  std::vector<steer::ScoreRequest> requests;
  for (std::string line; std::getline(std::cin, line);) {
    const auto item = nlohmann::json::parse(line);
    steer::ScoreRequest request{.ids = item["ids"], .begin = item["begin"]};
    if (item.contains("feature")) request.steering = steer::Steering().nudge(sae, item["feature"], item["strength"]);
    requests.push_back(std::move(request));
  }
  for (const auto& score : steer::score_texts(model, requests)) fmt::print("{}\n", score.log_probability);
}
