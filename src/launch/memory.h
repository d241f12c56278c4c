// What the kernel tells about a tree's memory: evidence for or against "it ran out of memory".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/memory_use.h"

namespace bitctl {

class MemoryEvidence {
 public:
  // Where to look. The default: this process's own.
  struct Places {
    std::string mount;      // of cgroup v2; empty where there is none
    std::string cgroup;     // the folder of the tree's own leaf, or of the cgroup that it shares with others
    std::string v1_cgroup;  // the folder of the v1 memory controller's cgroup, where that is in use
    std::string vmstat = "/proc/vmstat";
  };

  // `leaf` is the tree's own cgroup v2 leaf; empty where it has none.
  explicit MemoryEvidence(const std::string& leaf = {});
  explicit MemoryEvidence(Places places);

  // Counts from now on.
  void restart() { counted_before_ = oom_kills(); }
  // Counted by the nearest cgroup that has a memory controller, v2 before v1, else by the machine as a whole.
  // The peak is told only where the kernel killed for it in the tree's own leaf: it counts the page cache
  // too, which fills up in every training that reads much.
  MemoryUse since() const;
  // Bytes that its cgroups still let it take, page cache counted as free; nothing where none has a limit.
  std::optional<uint64_t> room() const;

 private:
  uint64_t oom_kills() const;
  uint64_t limit() const;

  Places places_;
  std::string counter_;  // the nearest v2 folder with a memory controller; empty where there is none
  uint64_t counted_before_ = 0;
};

}  // namespace bitctl
