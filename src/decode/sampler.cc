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

}  // namespace

Status check_options(const SamplerOptions& options) {
  if (!(options.temperature >= 0 && std::isfinite(options.temperature)))
    return fail(ErrorKind::invalid,
                fmt::format("temperature {} is not a number from 0 on", options.temperature));
  if (!(options.top_p >= 0 && options.top_p <= 1))
    return fail(ErrorKind::invalid, fmt::format("top_p {} is not from 0 to 1", options.top_p));
  if (options.top_k < 0) return fail(ErrorKind::invalid, fmt::format("top_k {} is negative", options.top_k));
  return {};
}

Result<std::vector<Candidate>> candidates(std::span<const float> logits, const SamplerOptions& options) {
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
  const double total = total_of(kept);
  for (auto& candidate : kept) candidate.probability /= total;
  return kept;
}

Result<int32_t> sample(std::span<const float> logits, const SamplerOptions& options, uint64_t position) {
  const auto kept = candidates(logits, options);
  if (!kept) return tl::unexpected(kept.error());
  double left = uniform_at(options.seed, position);
  for (const auto& candidate : *kept)
    if ((left -= candidate.probability) < 0) return candidate.id;
  return kept->back().id;  // the probabilities' sum fell short of 1 by a rounding
}

}  // namespace bitctl
