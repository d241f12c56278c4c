// The supervisor's hold on snapshots: the arena's descriptors, the writer process, and from where the next
// attempt resumes. Everything that is slow happens in the writer; here are only descriptors and messages.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "checkpoint/arena.h"
#include "checkpoint/catalog.h"
#include "checkpoint/writer_link.h"
#include "launch/spawn.h"
#include "run/run_folder.h"

namespace bitctl {

// What an attempt is given to start from.
struct Resume {
  std::string source;  // "memory", "disk"
  uint64_t step = 0;
  uint32_t gen = 0;
  uint32_t slot = 0;
};

class SnapshotKeeper {
 public:
  struct Callbacks {
    std::function<void(std::string_view kind, Json fields)> record;  // a row for events.jsonl
    // The arena that request `number` asked for can be mapped, or why not (then gen is 0).
    std::function<void(int number, uint32_t gen, const std::string& failure)> on_arena;
    // What the attempt resumes from is there to be mapped (nothing: it starts fresh); called once for each
    // attempt, and again where a checkpoint turned out to be damaged.
    std::function<void(const std::optional<Resume>&)> on_resume;
    // There are checkpoints, and none can be resumed from.
    std::function<void(const std::string& reason)> on_no_resume;
    std::function<void(uint64_t step)> on_finished;  // <run>/model is there
    std::function<void(const std::string& reason)> on_finish_failed;
    std::function<void(pid_t)> on_writer;  // it has been started
    std::function<void(const std::string& reason)>
        on_writer_lost;  // for good: nothing will be saved any more
    std::function<void(bool all_written)> on_drained;
  };

  SnapshotKeeper(EventLoop& loop, RunFolder folder, WriterOptions options, int lock_fd, Callbacks callbacks);
  ~SnapshotKeeper();

  Status start();
  // Decides from what attempt `number`, led by `leader`, resumes; the answer comes through on_resume. Again
  // for a worker that the attempt's own launcher starts anew: nobody writes a snapshot at that moment.
  void begin_attempt(int number, pid_t leader);
  // A checkpoint is being read for the attempt.
  bool is_loading() const { return loading_.has_value(); }
  // The trainer has put back what it was offered.
  void restored() { offered_.reset(); }
  void trainer_is_dead();
  // After trainer_is_dead(): gives up every snapshot but the newest below `before` whose tensors are all
  // finite. `done` gets its step, or nothing.
  void roll_back(uint64_t before, std::function<void(std::optional<uint64_t>)> done);
  void request_arena(int number, const Json& files);
  // Lets the writer finish what is READY and go.
  void drain();

  bitctl_control& control() { return *control_; }
  int control_fd() const { return control_fd_.get(); }
  int wake_fd() const { return wake_.get(); }
  // {gen, files} for the trainer, and the slots' descriptors.
  Json arena_message(uint32_t gen) const;
  std::vector<int> slot_fds(uint32_t gen) const;

  // The newest complete snapshot, in memory or on disk.
  std::optional<uint64_t> newest_step();
  std::optional<uint64_t> newest_durable_step() const;
  Duration longest_save() const { return longest_save_; }
  pid_t writer_pid() const { return writer_.pidfd ? writer_.pid : 0; }

 private:
  struct Generation {
    ArenaLayout layout;
    std::vector<Fd> slots;
    bool ready = false;
    int request = 0;  // of the trainer; 0: made for a load
    bool for_load = false;
  };
  struct Pending {
    int request = 0;
    ArenaLayout layout;
    bool for_load = false;
  };

  Status spawn_writer();
  void start_writer_again();
  void on_writer_exit();
  void on_writer_message();
  void handle(const Json& message);
  void send(const Json& message, const std::vector<int>& fds = {});

  void make_arena(Pending pending);
  std::optional<uint32_t> free_generation();
  void drop_generation(uint32_t gen);
  void drop_old_generations();
  void load_next_candidate();
  void begin_load(uint32_t gen);
  void offer(std::optional<Resume> resume);
  void no_resume(const std::string& reason);
  void drained(bool all_written);
  void lose_writer(const std::string& reason);
  void rolled_back_to(std::optional<uint64_t> step);

  EventLoop& loop_;
  RunFolder folder_;
  WriterOptions options_;
  int lock_fd_;
  Callbacks callbacks_;

  ControlPage control_;
  Fd control_fd_;
  Fd wake_;
  Spawned writer_;
  Fd link_;
  int writer_deaths_ = 0;  // since the last commit
  int early_deaths_ = 0;   // in a row, before it was ready
  bool writer_ready_ = false;
  bool writer_lost_ = false;
  EventLoop::TimerId writer_timer_ = 0;
  pid_t leader_ = 0;
  bool draining_ = false;

  std::map<uint32_t, Generation> generations_;
  uint32_t last_gen_ = 0;
  std::optional<Pending> waiting_arena_;  // until a bank is free
  std::vector<StepFolder> on_disk_;       // newest first
  std::optional<Resume> loading_;         // while the writer reads it
  std::optional<Resume> offered_;
  std::optional<uint64_t> rolling_back_;  // before this step, until the writer has answered
  std::function<void(std::optional<uint64_t>)> on_rolled_back_;
  uint32_t attempt_ = 0;
  Duration longest_save_{};
};

}  // namespace bitctl
