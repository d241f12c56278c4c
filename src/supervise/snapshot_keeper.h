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
#include "checkpoint/ranks.h"
#include "checkpoint/writer_link.h"
#include "launch/spawn.h"
#include "run/run_folder.h"
#include "supervise/rank_arenas.h"
#include "watch/save_watch.h"

namespace bitctl {

// What an attempt is given to start from.
struct Resume {
  struct Image {
    uint32_t gen = 0;
    uint32_t slot = 0;
  };
  std::string source;  // "memory", "disk"
  uint64_t step = 0;
  std::vector<Image> images;  // of each rank that saved it
};

class SnapshotKeeper {
 public:
  struct Callbacks {
    std::function<void(std::string_view kind, Json fields)> record;  // a row for events.jsonl
    // The arena that the rank's request `number` asked for can be mapped, or why not (then gen is 0).
    std::function<void(uint32_t rank, int number, uint32_t gen, const std::string& failure)> on_arena;
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
  // Makes the rank's control page where it has none.
  Status add_rank(uint32_t rank);
  void request_arena(uint32_t rank, int number, const Json& files);
  // Once a second: says so where a snapshot waits too long for the disk.
  void look();
  // Lets the writer finish what is READY and go.
  void drain();

  // Rank 0's page, where all ranks look for requests.
  bitctl_control& control() { return pages_.run(); }
  int control_fd(uint32_t rank = 0) const { return ranks_.at(rank).page_fd.get(); }
  int wake_fd() const { return wake_.get(); }
  const RankArenas& arenas(uint32_t rank) const { return ranks_.at(rank).arenas; }

  // The newest complete snapshot, in memory or on disk.
  std::optional<uint64_t> newest_step() const;
  std::optional<uint64_t> newest_durable_step() const;
  Duration longest_save() const { return longest_save_; }
  pid_t writer_pid() const { return writer_.pidfd ? writer_.pid : 0; }

 private:
  struct Rank {
    Fd page_fd;
    RankArenas arenas;
  };
  // A checkpoint on its way from the disk into the memory of each rank that saved it.
  struct Load {
    uint32_t world_size = 1;
    std::map<uint32_t, uint32_t> gens;  // made for it
    uint32_t allocated = 0;             // of them
  };

  Status spawn_writer();
  void tell_attempt();
  void start_writer_again();
  void on_writer_exit();
  void on_writer_message();
  void handle(const Json& message);
  void send(const Json& message, const std::vector<int>& fds = {});

  void announce(uint32_t rank, uint32_t gen);
  void make_arena(uint32_t rank, RankArenas::Pending pending);
  void drop_generation(uint32_t rank, uint32_t gen);
  void drop_old_generations();
  void load_next_candidate();
  void on_arena_for_load(uint32_t rank, uint32_t gen, const std::string& failure);
  void begin_load();
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

  RankPages pages_;
  std::map<uint32_t, Rank> ranks_;
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

  std::vector<StepFolder> on_disk_;  // newest first
  std::optional<Load> load_;
  std::optional<Resume> loading_;  // while the writer reads it
  std::optional<Resume> offered_;
  std::optional<uint64_t> rolling_back_;  // before this step, until the writer has answered
  std::function<void(std::optional<uint64_t>)> on_rolled_back_;
  uint32_t attempt_ = 0;
  std::optional<uint64_t> resumed_from_;  // the step that this attempt read from the disk
  Duration longest_save_{};
  SaveWatch save_watch_;
};

}  // namespace bitctl
