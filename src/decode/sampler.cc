#include "decode/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "decode/philox.h"

namespace bitctl {
namespace {

// The index of the largest logit, the first of equals. Comparisons with a NaN have no answer, so none may
// pass.
Result<size_t> most_likely(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == INFINITY)
      return fail(ErrorKind::invalid, fmt::format("the logit of token {} is {}", i, logits[i]));
    if (logits[i] > logits[best]) best = i;
  }
  if (logits.empty() || logits[best] == -INFINITY) return fail(ErrorKind::invalid, "no token is allowed");
  return best;
}

// Ties with the k-th stay, as in transformers.
void keep_top_k(std::vector<Candidate>& candidates, std::span<const float> logits, int64_t k) {
  if (k == 0 || static_cast<size_t>(k) >= candidates.size()) return;
  const auto logit = [&](const Candidate& candidate) { return logits[static_cast<size_t>(candidate.id)]; };
  std::vector<float> values;
  values.reserve(candidates.size());
  for (const auto& candidate : candidates) values.push_back(logit(candidate));
  std::nth_element(values.begin(), values.begin() + (k - 1), values.end(), std::greater<>());
  const float smallest = values[static_cast<size_t>(k - 1)];
  std::erase_if(candidates, [&](const Candidate& candidate) { return logit(candidate) < smallest; });
}

double total_of(const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const auto& candidate : candidates) total += candidate.probability;
  return total;
}

// A token stays while those more likely than it have not reached `top_p` yet. Usually few do, so a heap gives
// them up one by one instead of sorting the vocabulary.
void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  if (top_p == 1) return;
  const auto less_likely = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability < b.probability : a.id > b.id;
  };
  const double enough = top_p * total_of(candidates);
  std::make_heap(candidates.begin(), candidates.end(), less_likely);
  auto rest = candidates.end();
  double mass = 0;
  do {
    std::pop_heap(candidates.begin(), rest--, less_likely);
    mass += rest->probability;
  } while (mass < enough && rest != candidates.begin());
  candidates.erase(candidates.begin(), rest);
}

void keep_min_p(std::vector<Candidate>& candidates, double min_p) {
  if (min_p == 0) return;
  double largest = 0;
  for (const auto& candidate : candidates) largest = std::max(largest, candidate.probability);
  std::erase_if(candidates,
                [&](const Candidate& candidate) { return candidate.probability < min_p * largest; });
}

// Those whose information, -log p, is nearest to what the distribution gives on average (its entropy).
void keep_typical(std::vector<Candidate>& candidates, double typical_p) {
  if (typical_p == 1) return;
  const double total = total_of(candidates);
  double entropy = 0;
  for (const auto& [id, weight] : candidates) entropy -= weight / total * std::log(weight / total);
  const auto distance = [&](const Candidate& candidate) {
    return std::abs(-std::log(candidate.probability / total) - entropy);
  };
  std::vector<std::pair<double, double>> by_distance;  // and the weight
  for (const auto& candidate : candidates)
    by_distance.emplace_back(distance(candidate), candidate.probability);
  std::sort(by_distance.begin(), by_distance.end());
  double mass = 0;
  double farthest = 0;
  for (const auto& [how_far, weight] : by_distance) {
    farthest = how_far;
    if ((mass += weight) >= typical_p * total) break;
  }
  std::erase_if(candidates, [&](const Candidate& candidate) { return distance(candidate) > farthest; });
}

std::vector<float> penalised(std::span<const float> logits, std::span<const int32_t> context,
                             double penalty) {
  std::vector<float> changed(logits.begin(), logits.end());
  for (const int32_t id : context) {
    const auto at = static_cast<size_t>(id);
    if (id < 0 || at >= logits.size()) continue;
    const double logit = logits[at];
    changed[at] = static_cast<float>(logit < 0 ? logit * penalty : logit / penalty);
  }
  return changed;
}

bool is_probability(double value) { return value >= 0 && value <= 1; }

Status check_penalty(const SamplerOptions& options) {
  if (options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty)) return {};
  return fail(ErrorKind::invalid,
              fmt::format("repetition_penalty {} is not a number above 0", options.repetition_penalty));
}

}  // namespace

Status check_options(const SamplerOptions& options) {
  const auto refuse = [](const char* name, double value, const char* range) {
    return fail(ErrorKind::invalid, fmt::format("{} {} {}", name, value, range));
  };
  if (!(options.temperature >= 0 && std::isfinite(options.temperature)))
    return refuse("temperature", options.temperature, "is not a number from 0 on");
  if (options.top_k < 0) return fail(ErrorKind::invalid, fmt::format("top_k {} is negative", options.top_k));
  if (!is_probability(options.top_p)) return refuse("top_p", options.top_p, "is not from 0 to 1");
  if (!is_probability(options.min_p)) return refuse("min_p", options.min_p, "is not from 0 to 1");
  if (!is_probability(options.typical_p) || options.typical_p == 0)
    return refuse("typical_p", options.typical_p, "is not above 0 and at most 1");
  return check_penalty(options);
}

Result<std::vector<Candidate>> candidates(std::span<const float> logits, const SamplerOptions& options,
                                          std::span<const int32_t> context) {
  if (auto checked = check_penalty(options); !checked) return forward(std::move(checked));
  std::vector<float> changed;
  if (options.repetition_penalty != 1)
    logits = changed = penalised(logits, context, options.repetition_penalty);
  const auto best = most_likely(logits);
  if (!best) return tl::unexpected(best.error());
  if (options.temperature == 0) return std::vector<Candidate>{{static_cast<int32_t>(*best), 1}};
  if (auto checked = check_options(options); !checked) return forward(std::move(checked));

  std::vector<Candidate> kept;
  kept.reserve(logits.size());
  const double highest = logits[*best];
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - highest) / options.temperature);
    if (weight > 0) kept.push_back({static_cast<int32_t>(i), weight});
  }
  keep_top_k(kept, logits, options.top_k);
  keep_top_p(kept, options.top_p);
  keep_min_p(kept, options.min_p);
  keep_typical(kept, options.typical_p);
  const double total = total_of(kept);
  for (auto& candidate : kept) candidate.probability /= total;
  return kept;
}

Result<int32_t> sample(std::span<const float> logits, const SamplerOptions& options, uint64_t position,
                       std::span<const int32_t> context) {
  const auto kept = candidates(logits, options, context);
  if (!kept) return tl::unexpected(kept.error());
  double left = uniform_at(options.seed, position);
  for (const auto& candidate : *kept)
    if ((left -= candidate.probability) < 0) return candidate.id;
  return kept->back().id;  // the probabilities' sum fell short of 1 by a rounding
}

}  // namespace bitctl
