// events.jsonl: the append-only history of a run, one JSON object a line: {"t": Unix seconds, "attempt": n,
// "kind": …}. Written by the supervisor (and, once it is dead, by the writer); read by anybody at any time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"

namespace bitctl {

// The first three fields of every row.
Json event_row(std::string_view kind, int attempt, Wall t);

// The one who may append holds the run's lock.
class EventLog {
 public:
  // Opens for appending; a line that a crash left without its end is ended first.
  static Result<EventLog> open(const std::string& path);
  // One write a row, no fsync: a row survives the death of any process, and the machine's up to the last
  // seconds. A row that could not be written whole is not there at all.
  Status append(const Json& row);

 private:
  explicit EventLog(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Fd fd_;
  std::string path_;
};

// Calls `on_row` for every whole row from byte `offset` on and returns the offset after the last of them. A
// line that is no JSON object is skipped. Error::not_found where there is no file.
Result<uint64_t> read_events(const std::string& path, uint64_t offset,
                             const std::function<void(const Json&)>& on_row);

}  // namespace bitctl
