// From logits to the next token. Pure: the chance comes in as a number.
#pragma once

#include <cstdint>
#include <span>

namespace bitctl {

struct Sampling {
  double temperature = 0;  // 0: the most likely token
  double top_p = 1;        // the smallest set of tokens with at least this probability
  int top_k = 0;           // 0: all
};

// Hugging Face's order: temperature, top_k, top_p. `chance` is in [0, 1). Negative where no logit is a
// number.
int32_t pick_token(std::span<const float> logits, const Sampling& sampling, double chance);

// The chance at one position of a text: the same for the same seed, however the text came about.
double chance_at(uint64_t seed, uint64_t position);

}  // namespace bitctl
