#include "recover/warm_start.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace bitctl {
namespace {

constexpr uint64_t kLeastAvailable = 1 << 30;
constexpr double kMostPressure = 5;
constexpr int kMostDeaths = 3;

}  // namespace

std::string why_no_spare(const WarmFacts& facts) {
  if (!facts.own_interpreter)
    return "the command starts the script's Python itself, as launchers and shells do";
  if (!facts.objection.empty()) return facts.objection;
  if (facts.deaths >= kMostDeaths) return fmt::format("{} spares have died", facts.deaths);
  const uint64_t needed = std::max(kLeastAvailable, 2 * facts.spare_bytes);
  if (facts.available_bytes < needed)
    return fmt::format("only {} of memory are available; it takes {}", format_bytes(facts.available_bytes),
                       format_bytes(needed));
  if (facts.memory_pressure > kMostPressure)
    return fmt::format("memory is under pressure ({:.0f} %)", facts.memory_pressure);
  return {};
}

}  // namespace bitctl
