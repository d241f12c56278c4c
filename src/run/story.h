// A run's history as its attempts: what became of each, and what bitctl did about it. Where History answers
// "how is it now", this answers "what happened".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/memory_use.h"
#include "base/strict_json.h"

namespace bitctl {

struct Hang {
  std::string phase;
  double silent = 0;  // seconds
  double limit = 0;
  std::string reason;
};

struct AttemptStory {
  int attempt = 0;
  std::optional<uint64_t> step;  // completed, as far as it reported
  bool has_ended = false;
  std::string signal;            // that ended it
  std::optional<uint64_t> code;  // or that it left with
  std::string exception;         // "ValueError: …"
  std::string exception_type;
  std::string frame;  // "train.py:31 in main"
  std::string violation;
  std::string spawn_failure;
  std::optional<Hang> hang;
  bool stacks = false;                      // the stacks of its threads were recorded
  bool asked_to_leave = false;              // by a stop or a restart
  std::optional<uint64_t> non_finite_step;  // whose loss bitctl rolled the attempt back for
  MemoryUse memory;

  bool went_wrong() const;
  bool ran_out_of_memory() const;
};

struct Story {
  std::vector<AttemptStory> attempts;
  int restarts = 0;
  std::optional<uint64_t> resumed_step;  // where the newest of them went on
  std::string resumed_from;              // "memory", "disk"
  std::optional<uint64_t> rolled_back;   // to this step
  std::vector<uint64_t> bad_checkpoints;
  std::optional<uint64_t> checkpoint_step;  // the newest durable one
  std::string persist_trouble;              // why the newest snapshot is not on disk; empty where it is
  bool disk_full = false;
  std::string failure;           // the reason of the last `failed` row
  std::optional<int> exit_code;  // its code; none where bitctl itself could not go on

  void apply(const Json& row);
  const AttemptStory* last_failure() const;  // nullptr where nothing went wrong

 private:
  AttemptStory& attempt_of(const Json& row);
};

}  // namespace bitctl
