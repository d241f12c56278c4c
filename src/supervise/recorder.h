// The one who writes events.jsonl and PULSE, in a thread of its own: the loop never waits for a disk. PULSE
// is always the fold of the rows before it; it is written at most once a second, and at once where its status
// changes. Rows that the disk refuses are kept and tried again.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/strict_json.h"
#include "run/events.h"
#include "run/history.h"
#include "run/run_folder.h"

namespace bitctl {

class Recorder {
 public:
  // The caller holds the run's lock. Reads what an earlier supervisor recorded.
  static Result<std::unique_ptr<Recorder>> open(const RunFolder& folder, const Clock& clock);
  ~Recorder();

  // Adds a row; the returned history holds it already.
  const History& record(std::string_view kind, Json fields = Json::object());
  const History& history() const { return history_; }
  void set_attempt(int attempt) { attempt_ = attempt; }

  // Waits until everything is on its way to the disk. Only at the very end.
  void flush();

 private:
  Recorder(RunFolder folder, EventLog log, History history, const Clock& clock);
  void run();
  bool pulse_is_due() const;
  void write_rows(std::deque<Json>& rows);
  void write_pulse_file(const PulseStatus& pulse);

  RunFolder folder_;
  EventLog log_;
  History history_;
  const Clock& clock_;
  int attempt_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Json> rows_;
  std::optional<PulseStatus> pulse_;  // the newest; what was not written yet is replaced
  bool writing_ = false;
  bool flushing_ = false;
  bool ending_ = false;
  std::optional<PulseStatus> written_;  // these three of the thread alone
  Mono next_pulse_{};
  std::deque<Json> refused_;
  std::thread thread_;
};

}  // namespace bitctl
