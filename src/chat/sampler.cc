#include "chat/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

namespace bitctl {
namespace {

struct Candidate {
  double weight;  // its probability, not normalised
  int32_t id;
};

bool likelier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

double total_weight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

int32_t most_likely(std::span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i]) && (best < 0 || logits[i] > logits[static_cast<size_t>(best)]))
      best = static_cast<int32_t>(i);
  return best;
}

}  // namespace

int32_t pick_token(std::span<const float> logits, const Sampling& sampling, double chance) {
  const int32_t best = most_likely(logits);
  if (best < 0 || sampling.temperature <= 0 || !std::isfinite(logits[static_cast<size_t>(best)])) return best;

  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    const double distance = static_cast<double>(logits[i]) - logits[static_cast<size_t>(best)];
    candidates.push_back({std::exp(distance / sampling.temperature), static_cast<int32_t>(i)});
  }
  if (const auto k = static_cast<size_t>(std::max(sampling.top_k, 0)); k > 0 && k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<long>(k), candidates.end(),
                     likelier);
    candidates.resize(k);
  }
  double total = total_weight(candidates);
  if (sampling.top_p < 1) {
    // The likeliest first, only as many as are needed: a vocabulary is far longer than what top_p keeps.
    std::vector<Candidate> heap = std::exchange(candidates, {});
    const auto below = [](const Candidate& a, const Candidate& b) { return likelier(b, a); };
    std::make_heap(heap.begin(), heap.end(), below);
    for (double kept = 0; candidates.empty() || (kept < sampling.top_p * total && !heap.empty());) {
      std::pop_heap(heap.begin(), heap.end(), below);
      candidates.push_back(heap.back());
      heap.pop_back();
      kept += candidates.back().weight;
    }
    total = total_weight(candidates);
  }
  double left = chance * total;
  for (const auto& candidate : candidates)
    if ((left -= candidate.weight) < 0) return candidate.id;
  return candidates.back().id;
}

double chance_at(uint64_t seed, uint64_t position) {
  // SplitMix64's finaliser over seed and position.
  uint64_t z = seed + (position + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

}  // namespace bitctl
