#include "supervise/recorder.h"

#include <spdlog/spdlog.h>

#include "base/replace_file.h"
#include "pulse/write.h"

namespace bitctl {

Result<std::unique_ptr<Recorder>> Recorder::open(const RunFolder& folder, const Clock& clock) {
  auto history = read_history(folder.events());
  if (!history && history.error().kind != ErrorKind::not_found) return forward(std::move(history));
  auto log = EventLog::open(folder.events());
  if (!log) return forward(std::move(log));
  sweep_temporary_files(folder.pulse());
  return std::unique_ptr<Recorder>(
      new Recorder(folder, std::move(*log), history ? std::move(*history) : History{}, clock));
}

Recorder::Recorder(RunFolder folder, EventLog log, History history, const Clock& clock)
    : folder_(std::move(folder)),
      log_(std::move(log)),
      history_(std::move(history)),
      clock_(clock),
      attempt_(history_.attempt),
      thread_([this] { run(); }) {}

Recorder::~Recorder() {
  {
    const std::lock_guard guard(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

const History& Recorder::record(std::string_view kind, Json fields) {
  Json row = event_row(kind, attempt_, clock_.wall());
  row.update(fields);
  history_.apply(row);
  {
    const std::lock_guard guard(mutex_);
    rows_.push_back(std::move(row));
    pulse_ = history_.pulse;
  }
  changed_.notify_all();
  return history_;
}

void Recorder::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return rows_.empty() && !pulse_ && !writing_; });
}

void Recorder::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !rows_.empty() || pulse_; });
    if (rows_.empty() && !pulse_) return;
    std::deque<Json> rows;
    rows.swap(rows_);
    const PulseStatus pulse = *std::exchange(pulse_, std::nullopt);
    writing_ = true;
    lock.unlock();
    write(rows, pulse);
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

// A row or a status that cannot be written is said in the log and is no reason to end a training.
void Recorder::write(const std::deque<Json>& rows, const PulseStatus& pulse) {
  for (const Json& row : rows)
    if (const auto status = log_.append(row); !status) spdlog::error("{}", status.error().message);
  if (written_ == pulse) return;
  if (const auto status = write_pulse(folder_.pulse(), pulse); !status)
    spdlog::error("{}", status.error().message);
  else
    written_ = pulse;
}

}  // namespace bitctl
