// The history of a run as it grows, for those who only read.
#pragma once

#include <functional>

#include "run/history.h"
#include "run/run_folder.h"

namespace bitctl {

class HistoryReader {
 public:
  explicit HistoryReader(const RunFolder& folder) : path_(folder.events()) {}

  // Folds the rows that came since the last call; each goes to `on_row`, the history holds it already.
  // Error::not_found where there is no file yet.
  Status read(const std::function<void(const Json& row)>& on_row = [](const Json&) {});
  const History& history() const { return history_; }

 private:
  std::string path_;
  uint64_t offset_ = 0;
  History history_;
};

}  // namespace bitctl
