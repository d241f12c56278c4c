// Is the trainer still getting on? Alive is not progressing: only steps, and what a script says of longer
// work, count. Learns from the run how long that may take. Pure; the clock is the caller's.
//
//   suspected  after max(2 s, 5 × p99 of the steps seen)
//   hung       after `watchdog.stall`; automatic: max(60 s, 3 × the longest gap of this run in that phase)
//
// Before an attempt has made five steps it is in phase init: loading, compiling, the first steps. A phase
// that this run has not been through yet may take half an hour. A script that has not connected is judged by
// a declared stall alone, and by its output.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "base/clock.h"

namespace bitctl {

enum class Phase { init, train, eval, checkpoint, busy };  // python/bitctl/run.py has the same order

std::string_view name_of(Phase phase);
std::optional<Phase> phase_from(std::string_view name);

struct StallRules {
  bool enabled = true;
  std::optional<Duration> stall;  // declared; nothing: automatic
};

struct StallVerdict {
  enum class Kind { healthy, suspected, hung };
  Kind kind = Kind::healthy;
  Phase phase = Phase::init;
  Duration silent{};  // since the last sign of life
  Duration limit{};   // that it has reached: of suspicion, or of the hang
};

class StallWatch {
 public:
  explicit StallWatch(StallRules rules) : rules_(rules) {}

  // Forgets everything of the attempt before, above all a phase it died in; what the run has shown stays.
  void begin_attempt(Mono now);
  void connected(Mono now);
  // It goes on from a checkpoint: what such a start takes is learned apart from that of a fresh one.
  void resumes() { resumes_ = true; }
  // It reports nothing any more: only output and a declared stall count from here on.
  void disconnected(Mono now);
  bool is_connected() const { return connected_; }
  // A report of a step; the same one again is no progress, except while evaluating. A lower one is a new
  // count.
  void step(uint64_t step, Mono now);
  // A step that was made at `when`, but not reported: known from the control page.
  void made(uint64_t step, Mono when);
  // `at_most`: how long the script says it may take; a phase `busy` without it may take any time.
  void enter(Phase phase, std::optional<Duration> at_most, Mono now);
  // No more steps are to come: it has made the last one, saves the finished model, or leaves. That may take
  // `at_most`; nothing: as long as the disk wants. A step that comes all the same leads back.
  void ends(std::optional<Duration> at_most, Mono now);
  // Life of another kind: a status of its own, output of a script that reports nothing.
  void sign(Mono now);
  // Time in which nobody could get on, or could be heard: the machine or we ourselves slept.
  void excuse(Duration lost);

  StallVerdict judge(Mono now) const;
  // When the verdict gets worse if nothing is heard until then; nothing where it does not.
  std::optional<Mono> worsens_at(Mono now) const;
  Phase phase() const { return phase_; }
  // Grows with every sign of life.
  uint64_t signs() const { return signs_; }

  // What this run has not been through yet may take so long, and what is left to do after the last step.
  static constexpr Duration kFirstTime = std::chrono::minutes(30);

 private:
  static constexpr size_t kWindow = 128;
  static constexpr size_t kLearned = 5;  // steps before an attempt's own history counts

  void mark(Mono now);
  Duration p99() const;
  std::optional<Duration> hung_after() const;
  Duration suspected_after(Duration hung_after) const;

  StallRules rules_;
  std::map<Phase, Duration> longest_;  // of the run
  std::set<Phase> known_;              // those it has been through: their longest gap is known

  bool knows_resumes_ = false;  // it has been through the start of an attempt that resumed

  uint64_t signs_ = 0;
  Phase phase_ = Phase::init;
  bool resumes_ = false;
  bool ends_ = false;
  std::optional<Duration> at_most_;
  bool connected_ = false;
  std::optional<uint64_t> last_step_;
  Mono last_sign_;
  std::array<Duration, kWindow> gaps_{};  // between steps, of this attempt
  size_t gap_count_ = 0;
};

}  // namespace bitctl
