// From logits to the next token. Pure: the same logits, options and position give the same token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct SamplerOptions {
  double temperature = 0;  // 0: the most likely token, always; then only the penalty counts
  int64_t top_k = 0;       // only the k most likely (and those tied with the last of them); 0: all
  double top_p = 1;        // only the most likely that together reach this probability; 1: all
  uint64_t seed = 0;
  double min_p = 0;      // only those with at least this part of the largest probability; 0: all
  double typical_p = 1;  // only those nearest to the expected information that together reach it; 1: all
  double repetition_penalty = 1;  // above 1, tokens that stand in the context already are less likely
};

struct Candidate {
  int32_t id = 0;
  double probability = 0;

  bool operator==(const Candidate&) const = default;
};

// Error::invalid names the option that is out of its range.
Status check_options(const SamplerOptions& options);

// The tokens that may come next behind the ids of `context`, with probabilities that sum to 1, in an order
// that the arguments decide. As transformers does it: repetition_penalty, temperature, top_k, top_p, min_p,
// typical_p. Error::invalid for an option out of its range, and for logits with a NaN, a +infinity or nothing
// finite; -infinity forbids a token.
Result<std::vector<Candidate>> candidates(std::span<const float> logits, const SamplerOptions& options,
                                          std::span<const int32_t> context = {});

// The next token; `position` is the one it will stand at.
Result<int32_t> sample(std::span<const float> logits, const SamplerOptions& options, uint64_t position,
                       std::span<const int32_t> context = {});

}  // namespace bitctl
