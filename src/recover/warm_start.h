// May a spare be made now? A spare is a second interpreter that has imported what the training imports, and
// becomes the trainer at a restart. Pure.
#pragma once

#include <cstdint>
#include <string>

namespace bitctl {

struct WarmFacts {
  bool own_interpreter =
      false;                 // the process that bitctl started is the script's Python, by that command line
  std::string objection;     // why that Python cannot be started as a spare; empty where it can
  uint64_t spare_bytes = 0;  // what the trainer held once its imports were done
  uint64_t available_bytes = 0;  // of the machine, or of what our cgroups leave
  double memory_pressure = 0;    // percent of the last 10 s in which some process waited for memory
  int deaths = 0;                // of spares of this run
};

// Why there can be none, for people; empty where one may be made.
std::string why_no_spare(const WarmFacts& facts);

}  // namespace bitctl
