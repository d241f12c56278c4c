#include "chat/sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <random>
#include <vector>

#include "base/text.h"

namespace bitctl {
namespace {

constexpr double kMost = 1e9;
constexpr double kMaxNewTokens = 1024;  // where neither the user nor the model says
constexpr std::string_view kMaxNewTokensName = "max_new_tokens";

constexpr std::array kParameters{
    SamplingParameter{"temperature", 0, 100, false, 0,
                      "0: always the most likely token; where left out: the model's own, else 0"},
    SamplingParameter{"top_k", 0, kMost, true, 0,
                      "Choose among so many of the likeliest tokens; 0: among all"},
    SamplingParameter{"top_p", 0, 1, false, 1,
                      "Choose among the likeliest tokens that have this probability together"},
    SamplingParameter{"min_p", 0, 1, false, 0,
                      "Choose among the tokens with this part of the largest probability"},
    SamplingParameter{"typical_p", 1e-9, 1, false, 1,
                      "Choose among the most typical tokens that have this probability together"},
    SamplingParameter{"repetition_penalty", 0.01, 100, false, 1,
                      "Above 1: what stands in the conversation already is less likely"},
    SamplingParameter{kMaxNewTokensName, 1, kMost, true, kMaxNewTokens, "Longest answer"},
};

// Chosen without a temperature, they ask for sampling.
constexpr std::array<std::string_view, 4> kOnlyInSampling{"top_k", "top_p", "min_p", "typical_p"};

const SamplingParameter* find(std::string_view name) {
  const auto* found = std::find_if(kParameters.begin(), kParameters.end(),
                                   [&](const SamplingParameter& known) { return known.name == name; });
  return found == kParameters.end() ? nullptr : found;
}

std::string unknown_name(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& parameter : kParameters) names.emplace_back(parameter.name);
  const auto near = nearest_word(name, names);
  return fmt::format("no parameter {}{}; /show params lists them", name,
                     near ? fmt::format("; did you mean {}?", *near) : "");
}

uint64_t random_seed() {
  std::random_device device;
  return device();  // 32 bits: short enough to be typed again
}

}  // namespace

std::span<const SamplingParameter> sampling_parameters() { return kParameters; }

std::optional<double> value_of(const SamplingParameter& parameter, std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const bool fits =
      error == std::errc() && rest == end && value >= parameter.lowest && value <= parameter.highest;
  if (!fits || (parameter.whole && value != std::floor(value))) return std::nullopt;
  return value;
}

Sampling::Sampling(SamplingChoices chosen, std::optional<uint64_t> seed)
    : chosen_(std::move(chosen)), seed_(seed.value_or(random_seed())), seed_is_chosen_(seed.has_value()) {}

Status Sampling::set(std::string_view assignments) {
  SamplingChoices chosen = chosen_;
  for (const std::string& assignment : split(assignments, ' ')) {
    if (assignment.empty()) continue;
    const size_t sign = assignment.find('=');
    const std::string name = assignment.substr(0, sign);
    const SamplingParameter* parameter = find(name);
    if (parameter == nullptr) return fail(ErrorKind::invalid, unknown_name(name));
    const std::string text = sign == std::string::npos ? "" : assignment.substr(sign + 1);
    if (text == "default") {
      chosen.erase(name);
      continue;
    }
    const auto value = value_of(*parameter, text);
    if (!value)
      return fail(ErrorKind::invalid,
                  fmt::format("{}=\"{}\" is not a {}number from {:g} to {:g}, nor default", name, text,
                              parameter->whole ? "whole " : "", parameter->lowest, parameter->highest));
    chosen[name] = *value;
  }
  chosen_ = std::move(chosen);
  return {};
}

void Sampling::set_seed(uint64_t seed) {
  seed_ = seed;
  seed_is_chosen_ = true;
}

void Sampling::draw_seed() { set_seed(random_seed()); }

// A whole number of the model's file that is 0, negative or none is as if it were not there.
std::optional<double> Sampling::model_said(std::string_view name) const {
  const SamplingParameter& parameter = *find(name);
  if (!parameter.whole) return get_finite(model_, name);
  const uint64_t value = get_unsigned(model_, name).value_or(0);
  return value == 0 ? std::nullopt : std::optional(std::min(static_cast<double>(value), parameter.highest));
}

std::optional<double> Sampling::said(std::string_view name) const {
  const auto chosen = chosen_.find(name);
  return chosen != chosen_.end() ? chosen->second : model_said(name);
}

double Sampling::value(std::string_view name) const { return said(name).value_or(find(name)->when_off); }

SamplerOptions Sampling::options() const {
  const bool asked = seed_is_chosen_ || std::any_of(kOnlyInSampling.begin(), kOnlyInSampling.end(),
                                                    [&](auto name) { return chosen_.contains(name); });
  const auto chosen = chosen_.find("temperature");
  double temperature = asked ? 1 : 0;
  if (chosen != chosen_.end())
    temperature = chosen->second;
  else if (get_flag(model_, "do_sample"))
    temperature = model_said("temperature").value_or(1);
  return {.temperature = temperature,
          .top_k = static_cast<int64_t>(value("top_k")),
          .top_p = value("top_p"),
          .seed = seed_,
          .min_p = value("min_p"),
          .typical_p = value("typical_p"),
          .repetition_penalty = value("repetition_penalty")};
}

Json Sampling::for_remote() const {
  Json settings = Json::object();
  for (const auto& [ours, theirs] :
       {std::pair("temperature", "temperature"), {"top_p", "top_p"}, {"max_new_tokens", "max_tokens"}})
    if (const auto chosen = chosen_.find(ours); chosen != chosen_.end()) settings[theirs] = chosen->second;
  if (settings.contains("max_tokens")) settings["max_tokens"] = max_new_tokens();
  if (seed_is_chosen_) settings["seed"] = seed_;
  return settings;
}

int64_t Sampling::max_new_tokens() const { return static_cast<int64_t>(value(kMaxNewTokensName)); }

std::string Sampling::summary() const {
  const double temperature = options().temperature;
  std::string text = temperature == 0 ? std::string("greedy") : fmt::format("temperature {:g}", temperature);
  for (const auto& parameter : kParameters) {
    const bool counts =
        parameter.name == "repetition_penalty" ||
        (temperature > 0 && parameter.name != "temperature" && parameter.name != kMaxNewTokensName);
    if (counts && value(parameter.name) != parameter.when_off)
      text += fmt::format(", {} {:g}", parameter.name, value(parameter.name));
  }
  return temperature == 0 ? text : text + fmt::format(", seed {}", seed_);
}

std::string Sampling::table() const {
  std::string text;
  for (const auto& parameter : kParameters) {
    const bool is_temperature = parameter.name == "temperature";
    const char* who = chosen_.contains(parameter.name)                   ? "chosen here"
                      : is_temperature && !get_flag(model_, "do_sample") ? "default"
                      : model_said(parameter.name)                       ? "generation_config.json"
                                                                         : "default";
    text +=
        fmt::format("{:<19} {:<9} {}\n", parameter.name,
                    fmt::format("{:g}", is_temperature ? options().temperature : value(parameter.name)), who);
  }
  return text + fmt::format("{:<19} {:<9} {}", "seed", seed_, seed_is_chosen_ ? "chosen here" : "drawn");
}

}  // namespace bitctl
