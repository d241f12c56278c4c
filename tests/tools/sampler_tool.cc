// The sampler's candidates, for a test that compares them with transformers. Per line of input one line of
// output:
//   {"logits": [1.5, …], "context": [3, …], "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0,
//   "typical_p": 1,
//    "repetition_penalty": 1}
//   {"ids": [7, …], "probabilities": [0.5, …]}, or {"error": "…"}
#include <iostream>

#include "base/strict_json.h"
#include "decode/sampler.h"

namespace {

using namespace bitctl;

Json answer(const Json& request) {
  const auto logits = request.at("logits").get<std::vector<float>>();
  const auto context = request.at("context").get<std::vector<int32_t>>();
  const SamplerOptions options{.temperature = request.at("temperature"),
                               .top_k = request.at("top_k"),
                               .top_p = request.at("top_p"),
                               .min_p = request.at("min_p"),
                               .typical_p = request.at("typical_p"),
                               .repetition_penalty = request.at("repetition_penalty")};
  const auto kept = candidates(logits, options, context);
  if (!kept) return {{"error", kept.error().message}};
  Json reply{{"ids", Json::array()}, {"probabilities", Json::array()}};
  for (const auto& [id, probability] : *kept) {
    reply["ids"].push_back(id);
    reply["probabilities"].push_back(probability);
  }
  return reply;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);)
    std::cout << dump_line(answer(Json::parse(line))) << std::endl;
  return 0;
}
