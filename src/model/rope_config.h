// Rotary position embeddings as config.json describes them, and the frequencies that follow.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config_fields.h"

namespace bitctl {

struct RopeConfig {
  enum class Type { plain, linear, dynamic, llama3, yarn, longrope };  // "default" is plain

  Type type = Type::plain;
  double theta = 10'000;
  double rotated_part = 1;  // of a head's dimensions, the first of them
  double factor = 1;
  double original_max_position_embeddings = 0;
  double low_freq_factor = 1;  // llama3
  double high_freq_factor = 4;
  double beta_fast = 32;  // yarn
  double beta_slow = 1;
  bool truncate = true;
  double attention_factor = 1;       // yarn, longrope: cosines and sines are multiplied by it
  std::vector<double> short_factor;  // longrope: one for each frequency
  std::vector<double> long_factor;   // from original_max_position_embeddings on
};

// RoPE is spelled as rope_parameters (transformers 5), as rope_scaling with rope_theta beside it (4), or half
// and half; what is said twice must be said alike. `layer_type` picks an entry of rope_parameters where they
// are given for each type; empty: they must not be. What is wrong is in `fields.error()`.
RopeConfig parse_rope(ConfigFields& fields, int64_t max_position_embeddings, double default_theta,
                      std::string_view layer_type = {});

// How many of `head_dim` dimensions turn.
int64_t rotated_dimensions(const RopeConfig& config, int64_t head_dim);

// One angle a position for each pair of dimensions, float32 as transformers has them. `is_long`: longrope's
// factors for more than original_max_position_embeddings.
std::vector<float> rope_frequencies(const RopeConfig& config, int64_t head_dim, bool is_long = false);

}  // namespace bitctl
