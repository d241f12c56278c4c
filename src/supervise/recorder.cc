#include "supervise/recorder.h"

#include <spdlog/spdlog.h>

#include "base/replace_file.h"
#include "pulse/write.h"

namespace bitctl {
namespace {

constexpr auto kPulsePace = std::chrono::seconds(1);
constexpr size_t kMaxRefused = 100'000;

}  // namespace

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
  flushing_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return rows_.empty() && !pulse_ && !writing_; });
  flushing_ = false;
}

bool Recorder::pulse_is_due() const {
  if (!pulse_) return false;
  return flushing_ || ending_ || !written_ || written_->status != pulse_->status ||
         clock_.monotonic() >= next_pulse_;
}

void Recorder::run() {
  std::unique_lock lock(mutex_);
  const auto something_is_due = [this] { return ending_ || !rows_.empty() || pulse_is_due(); };
  while (true) {
    if (pulse_)
      changed_.wait_for(lock, next_pulse_ - clock_.monotonic(), something_is_due);
    else
      changed_.wait(lock, something_is_due);
    std::deque<Json> rows;
    rows.swap(rows_);
    const auto pulse = pulse_is_due() ? std::exchange(pulse_, std::nullopt) : std::nullopt;
    if (rows.empty() && !pulse) {
      if (ending_) return;
      continue;
    }
    writing_ = true;
    lock.unlock();
    write_rows(rows);
    if (pulse) write_pulse_file(*pulse);
    lock.lock();
    writing_ = false;
    changed_.notify_all();
  }
}

// A row or a status that cannot be written is said in the log and is no reason to end a training.
void Recorder::write_rows(std::deque<Json>& rows) {
  for (Json& row : rows) refused_.push_back(std::move(row));
  while (!refused_.empty()) {
    if (const auto status = log_.append(refused_.front()); !status) {
      spdlog::error("{}", status.error().message);
      break;
    }
    refused_.pop_front();
  }
  while (refused_.size() > kMaxRefused) refused_.pop_front();
}

void Recorder::write_pulse_file(const PulseStatus& pulse) {
  if (written_ == pulse) return;
  next_pulse_ = clock_.monotonic() + kPulsePace;
  if (const auto status = write_pulse(folder_.pulse(), pulse); !status)
    spdlog::error("{}", status.error().message);
  else
    written_ = pulse;
}

}  // namespace bitctl
