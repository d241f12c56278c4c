// With what the answers are sampled: what the user chose, else what the model's generation_config.json says.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/strict_json.h"
#include "decode/sampler.h"

namespace bitctl {

struct SamplingParameter {
  std::string_view name;  // "top_p", as generation_config.json has it
  double lowest = 0;
  double highest = 0;
  bool whole = false;
  double when_off = 0;  // the value that changes nothing
  std::string_view help;
};

std::span<const SamplingParameter> sampling_parameters();
// Nothing where that text is no value of it.
std::optional<double> value_of(const SamplingParameter& parameter, std::string_view text);

using SamplingChoices = std::map<std::string, double, std::less<>>;  // by the parameter's name

class Sampling {
 public:
  explicit Sampling(SamplingChoices chosen, std::optional<uint64_t> seed);

  void use_model(Json generation) { model_ = std::move(generation); }
  // "temperature=0.7 top_p=0.9"; the value "default" gives a parameter back to the model. Error::invalid
  // names what is wrong, and then nothing has changed.
  Status set(std::string_view assignments);
  void set_seed(uint64_t seed);
  void draw_seed();

  // What the user chose, as OpenAI-compatible endpoints name it; these have no top-k and its like.
  Json for_remote() const;

  // Without a word of the model or the user: greedy. Where the user chose what only counts in sampling, at
  // temperature 1.
  SamplerOptions options() const;
  int64_t max_new_tokens() const;
  std::string summary() const;  // "greedy", or "temperature 0.7, top_p 0.9, seed 3"
  std::string table() const;    // each parameter, its value and who said so

 private:
  std::optional<double> said(std::string_view name) const;  // by the user or the model
  std::optional<double> model_said(std::string_view name) const;
  double value(std::string_view name) const;

  SamplingChoices chosen_;
  Json model_ = Json::object();
  uint64_t seed_ = 0;
  bool seed_is_chosen_ = false;
};

}  // namespace bitctl
