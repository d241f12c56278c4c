// Every state in which a power cut may leave a checkpoints folder while a recorded log of calls runs, and
// what the real recovery makes of each.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/crash_model.h"

namespace bitctl {

struct CrashCase {
  std::string name;
  size_t elements = 0;      // of the steps: how many pieces there are to lose
  Tree before;              // of the checkpoints folder; durable
  std::vector<FileOp> log;  // a note "acknowledged N": from here on step N must be there
  size_t from = 0;          // a crash before so many calls is another case's
  // What a step may hold, its manifest left out.
  std::set<std::pair<uint64_t, Tree>> good;
  // What step `acknowledged` must hold once it is.
  Tree acknowledged;
};

struct CrashLimits {
  size_t all_up_to = 9;  // so many pending effects are tried in all their combinations
  size_t random = 100;   // else so many at random, beside every prefix and every one left out
  uint64_t seed = 1;
  bool one_is_enough = false;  // ends with the first violation
};

struct CrashCounts {
  uint64_t states = 0;    // combinations looked at
  uint64_t distinct = 0;  // different trees among them; each was recovered
  uint64_t torn = 0;      // accepted though wrong: inspect_step or verify_step takes what was never saved
  uint64_t half = 0;      // a folder with a step's name that was whole, or not there, and does not verify
  uint64_t none = 0;      // no good checkpoint left where there was one
  uint64_t lost = 0;      // an acknowledged step, or what was newest before, is not what recovery finds
  uint64_t stuck = 0;     // the next save fails
  std::string first;      // the first violation

  uint64_t violations() const { return torn + half + none + lost + stuck; }
  CrashCounts& operator+=(const CrashCounts& other);
};

CrashCounts try_every_crash(const CrashCase& crash_case, const CrashLimits& limits);

// Saves by the real code: the first one, a further one, with side files, with retention, over a bad folder,
// of a step that stands already (the same, and another content; with and without an atomic exchange of
// names).
std::vector<CrashCase> save_cases(size_t elements = 1500);
// The first N calls of the case, a kill, and then what the next writer does: a sweep, and the same save
// again.
std::vector<CrashCase> killed_and_saved_again(const CrashCase& crash_case, size_t every = 1);
// The same saves with the Nth call failing, N = 1, 2, …; each fsync and rename, and every so many-th of the
// others.
std::vector<CrashCase> failing_cases(int error, int every = 1);

// The protocols that are known to be wrong.
std::vector<CrashCase> bad_twins();

}  // namespace bitctl
