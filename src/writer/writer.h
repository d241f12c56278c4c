// The checkpoint writer: one loop that always answers, and threads for what may wait for a disk. It persists
// what the trainer leaves READY in the arena, reads checkpoints back, and is the sentinel: when the
// supervisor dies it kills the trainer's tree, puts the newest snapshot on disk and the truth into PULSE, and
// goes.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/worker.h"
#include "checkpoint/arena.h"
#include "checkpoint/commit.h"
#include "checkpoint/ranks.h"
#include "checkpoint/writer_link.h"
#include "engine_api/engine_api.h"
#include "launch/isolation.h"
#include "run/run_folder.h"
#include "writer/rank_watch.h"
#include "writer/sentinel.h"
#include "writer/slot_image.h"

namespace bitctl {

class Writer {
 public:
  Writer(WriterOptions options, Fd socket, ControlPage control, Fd wake, Fd run_lock, Fd supervisor);
  ~Writer();

  // Until shutdown or the supervisor's death; the exit code.
  int run();

 private:
  struct Arena {
    ArenaLayout layout;
    SharedMemory slots[BITCTL_SLOTS];
  };
  // A step to be saved, in the disk's thread: all that it looks at.
  struct Job {
    SlotSet set;
    std::vector<std::shared_ptr<Arena>> arenas;  // of each rank
    std::vector<SlotPart> parts;
    bitctl_control* control;
    std::optional<uint64_t> resumed_from;
  };

  void on_message();
  bool receive();  // false where nothing was there
  void handle(const Json& message, std::vector<Fd> fds);
  void on_wake();
  void on_supervisor_gone();

  void take_arena(const Json& message, std::vector<Fd> fds);
  void load(const Json& message);
  void roll_back(uint64_t before);
  void go_on_rolling_back();
  void set_trainer(pid_t leader, uint32_t attempt);
  void add_page(uint32_t rank, ControlPage page);
  void release_held();
  void persist_next();
  bool claim(const SlotSet& set);
  void persist(const Job& job);
  void tell_retained(const std::vector<uint64_t>& deleted, const std::string& reason);
  bool make_room(RetentionScope scope, uint64_t bytes, const std::string& reason);
  void after_persist(const SlotSet& set, const Status& status, bool retry);
  void tell_failed(const SlotView& slot, const Error& error, bool final);
  void publish(uint64_t step);
  bool leave_if_done();

  void send(Json message);

  WriterOptions options_;
  RunFolder folder_;
  EventLoop loop_;
  Inbox inbox_;
  Fd socket_;
  RankPages pages_;
  Fd wake_;
  Fd run_lock_;  // shared with the supervisor; freed when both are gone
  Fd supervisor_;

  std::map<std::pair<uint32_t, uint32_t>, std::shared_ptr<Arena>> arenas_;  // by rank and generation
  std::atomic<const bitctl_engine*> engine_{nullptr};
  RankWatch rank_watch_;
  Sentinel sentinel_;
  std::atomic<uint32_t> running_attempt_ = 0;  // whose trainer lives; 0: none does
  int allocating_ = 0;
  bool persisting_ = false;
  std::optional<uint64_t> rolling_back_;  // before this step
  std::optional<uint64_t> resumed_from_;  // the step that this attempt read from the disk
  bool leaving_ = false;
  bool orphaned_ = false;
  int failures_ = 0;
  EventLoop::TimerId retry_timer_ = 0;
  int exit_code_ = 0;

  Worker memory_;  // allocating and loading
  Worker disk_;    // saving
};

}  // namespace bitctl
