#include "base/memory_use.h"

#include "base/text.h"

namespace bitctl {
namespace {

constexpr double kNearTheLimit = 0.9;

}  // namespace

bool ran_out_of_memory(const MemoryUse& use, bool ended_by_sigkill) {
  if (!ended_by_sigkill) return false;
  return use.oom_kills > 0 ||
         (use.limit > 0 && static_cast<double>(use.peak) >= kNearTheLimit * static_cast<double>(use.limit));
}

std::string describe(const MemoryUse& use) {
  if (use.peak == 0) return {};
  return format_bytes(use.peak) + " at its peak" + (use.limit > 0 ? ", of " + format_bytes(use.limit) : "");
}

}  // namespace bitctl
