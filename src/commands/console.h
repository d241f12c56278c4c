// What `train`, `resume` and `attach` show of a run: a panel on a terminal, a line an event elsewhere.
#pragma once

#include <string>

#include "base/event_loop.h"
#include "commands/printer.h"
#include "pulse/view.h"
#include "run/history.h"
#include "run/run_folder.h"

namespace bitctl {

class Console {
 public:
  Console(EventLoop& loop, Printer& printer, RunLabels labels, bool plain);
  ~Console();

  // What is already known, without news.
  void begin(const History& history);
  // A row has come; the history holds it already.
  void on_row(const History& history, const Json& row);
  // A line that stays, above the panel.
  void note(const std::string& text);
  // The panel stays as it is; what is printed later comes below it.
  void close();

 private:
  void tick();
  void draw();

  EventLoop& loop_;
  Printer& printer_;
  RunLabels labels_;
  History history_;
  bool draws_;
  EventLoop::TimerId timer_ = 0;
  Mono last_progress_{};
};

// After the end: where the model is, how to go on, or the end of the log and where the reasons stand.
// `code` is the run's.
void print_what_next(Printer& printer, const RunFolder& folder, const History& history, int code);

}  // namespace bitctl
