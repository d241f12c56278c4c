// Warm standby: a spare interpreter with the trainer's command line and environment, which imports what the
// first attempt had imported and waits (python/bitctl/spare.py). At a restart it becomes the trainer. Until
// then it is no attempt, its death is no failure, and it dies with the run.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/strict_json.h"
#include "recover/warm_start.h"
#include "supervise/trainer_process.h"

namespace bitctl {

class Spare {
 public:
  // What has become the trainer.
  struct Trainer {
    Spawned leader;
    std::unique_ptr<Tree> tree;
  };

  // `record` writes a row `spare`. The isolation outlives it.
  Spare(EventLoop& loop, Isolation& isolation, std::function<void(Json)> record);
  // Nothing of it is left; waits for its death by SIGKILL, a second at most.
  ~Spare();

  // None in this run, any more.
  void rule_out(const std::string& reason);
  void drop();  // the same, without a word: the run is over

  // No attempt has yet told what it imported.
  bool wants_modules() const { return !over_ && !modules_ && facts_.objection.empty(); }
  // `message` and `modules` are what python/bitctl/modules.py hands over; `trainer` is the process that did,
  // `own_interpreter` as in WarmFacts.
  void learn(const Json& message, Fd modules, bool own_interpreter);

  // An attempt has made its first good step: from now on one is due.
  void attempt_is_good() { due_ = true; }
  bool is_due() const { return due_ && !over_ && modules_ && state_ == State::none; }
  // Starts one with `plan`, the attempt's own, or records why not.
  void make(SpawnPlan plan);

  bool is_ready() const { return state_ == State::ready; }
  // Only where it is ready: it becomes the trainer with `env` changed and `log` as its output. `on_answer`
  // may come at once; with nothing where the spare was dead or silent for a second: then it has been killed.
  void go(const Json& env, const std::string& log, std::function<void(std::optional<Trainer>)> on_answer);
  // Takes note of an answer that is there already.
  void read_link();

  pid_t pid() const { return process_.is_running() ? process_.pid() : 0; }

 private:
  enum class State { none, starting, ready, going, ending };

  void handle(const Json& message);
  void on_exit(const ExitStatus& status);
  void become_trainer();
  void give_up(const std::string& reason);
  void record_off(const std::string& reason);
  void end();
  void close_link();

  EventLoop& loop_;
  Isolation& isolation_;
  std::function<void(Json)> record_;
  TrainerProcess process_;
  State state_ = State::none;
  bool over_ = false;
  bool due_ = false;
  WarmFacts facts_;
  Fd modules_;  // a memfd: handed through, never read here
  Fd link_;
  int made_ = 0;
  Mono made_at_;
  std::string off_;  // the last reason recorded
  std::function<void(std::optional<Trainer>)> on_answer_;
  EventLoop::TimerId timer_ = 0;
};

// True where that process was started by exactly this command line, and still shows it.
bool has_command_line(pid_t pid, const std::vector<std::string>& argv);

}  // namespace bitctl
