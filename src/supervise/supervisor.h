// `bitctl train`: one epoll thread that starts the trainer, watches it, keeps its snapshots, restarts it with
// judgement, and tells the truth about it. Nothing here waits for a disk.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "config/run_config.h"
#include "launch/isolation.h"
#include "recover/policy.h"
#include "run/create_run.h"
#include "supervise/hang_watch.h"
#include "supervise/machine.h"
#include "supervise/output_watch.h"
#include "supervise/pulse_source.h"
#include "supervise/recorder.h"
#include "supervise/snapshot_keeper.h"
#include "supervise/spare.h"
#include "supervise/trainer_process.h"
#include "supervise/trainer_server.h"
#include "watch/progress_rows.h"

namespace bitctl {

// What the command that owns the terminal wants to know.
struct SupervisorView {
  // After every row; the history holds it already.
  std::function<void(const History&, const Json& row)> on_row = [](const History&, const Json&) {};
  // A line for people that belongs into no file ("again: stop now").
  std::function<void(const std::string&)> on_notice = [](const std::string&) {};
};

class Supervisor {
 public:
  // `run` holds the locks. Signals SIGINT, SIGTERM, SIGHUP and SIGCHLD must be blocked; `signals` is their
  // signalfd.
  Supervisor(EventLoop& loop, HeldRun run, RunConfig config, Fd signals, SupervisorView view);
  ~Supervisor();

  // Until the run has ended; the exit code of base/exit_code.h. Error where it could not even begin.
  Result<int> run();

  const History& history() const { return recorder_->history(); }

 private:
  // machine
  void feed(Event event);
  void act(Effect effect);
  void start_attempt();
  void start_cold();
  void begun();
  void request_stop();
  void catch_up();
  void ask_to_leave();
  void kill_tree();
  void decide_next();
  void begin_backoff();
  void drain();
  void finish();

  // what happens
  void on_signal();
  void on_hang();
  void on_leader_exit(const ExitStatus& status);
  void on_tree_gone();
  void on_unkillable(const std::vector<pid_t>& left);
  void on_gone(const TrainerServer::Client& client);
  void on_hello(const TrainerServer::Client& client);
  void on_message(const TrainerServer::Client& client, const Json& message);
  void on_modules(const TrainerServer::Client& client, const Json& message, std::vector<Fd> fds);
  void make_spare();
  void on_control(const TrainerServer::Client& client, const Json& message);
  void on_progress(const Json& message);
  void on_non_finite(const Json& message);
  void on_phase(const Json& message);
  void enter_phase();
  void on_pulse(const PulseStatus& status, const std::string& non_finite, bool stamped);
  void take_progress(const Progress& progress);
  void on_arena(uint32_t rank, int request, uint32_t gen, const std::string& failure);
  void note_sharded(int rank, bool sharded);
  void ask_for(bitctl_asked what);
  void on_resume(const std::optional<Resume>& resume);
  void on_writer(pid_t pid);
  void on_writer_lost(const std::string& reason);
  void violate(const std::string& reason);
  enum class Urgency { at_the_boundary, now };
  void ask_stop(const std::string& by, Urgency urgency = Urgency::at_the_boundary);
  Status ask_restart(Urgency urgency);

  void begin_from_newest();
  void welcome(const TrainerServer::Client& client);
  Json resume_message(uint32_t rank, std::vector<int>& fds) const;
  void record(std::string_view kind, Json fields = Json::object());
  void flush_progress();
  void schedule_progress();
  void restamp();
  bool trainer_runs() const {
    return state_ == State::running || state_ == State::stopping || state_ == State::restarting;
  }
  void reap_orphans();
  std::optional<std::string> first_step_problem(uint64_t step) const;
  Json checkpoint_policy() const;
  SpawnPlan spawn_plan(int attempt) const;

  EventLoop& loop_;
  HeldRun held_;
  RunConfig config_;
  Fd signals_;
  SupervisorView view_;

  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<TrainerServer> server_;
  std::unique_ptr<Isolation> isolation_;
  std::unique_ptr<SnapshotKeeper> snapshots_;
  std::unique_ptr<PulseSource> pulse_source_;  // progress.source: pulse
  std::unique_ptr<OutputWatch> output_watch_;  // a declared watchdog.stall

  State state_ = State::waiting;
  std::vector<AttemptRecord> attempts_;
  TrainerProcess trainer_;
  HangWatch hang_watch_;
  std::unique_ptr<Spare> spare_;
  std::string token_;
  Mono run_started_;
  Mono attempt_started_;

  // of the attempt that runs
  AttemptRecord now_;
  std::set<int> ranks_seen_;
  int launcher_restart_ = 0;
  std::optional<std::pair<int, bool>> sharded_;  // a rank, and what it says
  std::set<int> welcomed_;
  bool resume_known_ = false;
  std::optional<Resume> resume_;
  std::optional<uint64_t> restored_;  // the step that the trainer says it goes on from
  bool first_step_seen_ = false;
  uint64_t widest_report_gap_ = 0;  // steps between two reports, over the whole run
  std::optional<uint64_t> last_reported_;
  bool finish_asked_ = false;
  uint32_t phases_seen_ = 0;
  std::optional<Mono> last_phase_row_;
  bool finish_needs_model_ = false;
  bool model_published_ = false;
  ProgressRows progress_;

  // watchdog.nan: rollback: where the data went on when the loss was no number, for whoever resumes from
  // there.
  std::optional<uint64_t> rolled_back_to_;
  Json data_after_;
  Decision decision_;
  bool stop_asked_ = false;
  bool snapshot_lost_ = false;  // the newest one could not be put on disk
  std::string writer_lost_;     // why nothing can be saved any more
  EventLoop::TimerId backoff_timer_ = 0;
  EventLoop::TimerId grace_timer_ = 0;
  EventLoop::TimerId progress_timer_ = 0;
  EventLoop::TimerId restamp_timer_ = 0;
  EventLoop::TimerId trim_timer_ = 0;
  int exit_code_ = 0;
};

}  // namespace bitctl
