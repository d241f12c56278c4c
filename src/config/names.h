// The words of the config's choices, for reading and for writing them.
#pragma once

#include <cstddef>
#include <string_view>
#include <utility>

#include "config/run_config.h"

namespace bitctl {

constexpr std::pair<std::string_view, ProgressSource> kProgressSources[] = {
    {"auto", ProgressSource::automatic},
    {"hook", ProgressSource::hook},
    {"pulse", ProgressSource::pulse},
    {"none", ProgressSource::none}};
constexpr std::pair<std::string_view, RestartPolicy> kRestartPolicies[] = {
    {"never", RestartPolicy::never}, {"on-failure", RestartPolicy::on_failure}};
constexpr std::pair<std::string_view, BestMode> kBestModes[] = {{"min", BestMode::min},
                                                                {"max", BestMode::max}};
constexpr std::pair<std::string_view, NanAction> kNanActions[] = {
    {"warn", NanAction::warn}, {"stop", NanAction::stop}, {"rollback", NanAction::rollback}};

template <typename T, size_t N>
constexpr std::string_view name_of(const std::pair<std::string_view, T> (&names)[N], T value) {
  for (const auto& [name, known] : names)
    if (known == value) return name;
  return {};
}

}  // namespace bitctl
