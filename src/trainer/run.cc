#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "base/environment_variable.h"
#include "base/exit_code.h"
#include "checkpoint/arena.h"
#include "snapshot/snapshot.h"
#include "trainer/due.h"
#include "trainer/image.h"
#include "trainer/link.h"
#include "trainer/trainer.h"
#include "watch/messages.h"
#include "watch/stall_watch.h"

namespace bitctl::trainer {
namespace {

constexpr double kProgressPace = 0.05;  // seconds
constexpr double kArenaPace = 30;       // seconds before memory that was refused is asked for again
constexpr int kAwaitMs = 1000;

// The header stands alone; these are what it repeats.
static_assert(trainer::kStopped == bitctl::kStopped);
static_assert(static_cast<int>(Phase::train) == static_cast<int>(bitctl::Phase::train) &&
              static_cast<int>(Phase::eval) == static_cast<int>(bitctl::Phase::eval) &&
              static_cast<int>(Phase::checkpoint) == static_cast<int>(bitctl::Phase::checkpoint) &&
              static_cast<int>(Phase::busy) == static_cast<int>(bitctl::Phase::busy));

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int number_in(std::initializer_list<const char*> names, int otherwise) {
  for (const char* name : names)
    if (const std::string value = environment_variable(name); !value.empty()) return std::atoi(value.c_str());
  return otherwise;
}

template <typename T>
T checked(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

}  // namespace

const Tensor& Checkpoint::tensor(const std::string& name) const {
  for (const auto* tensors : {&model_, &training_})
    for (const Tensor& tensor : *tensors)
      if (tensor.name == name) return tensor;
  throw std::out_of_range("the checkpoint has no tensor '" + name + "'");
}

class [[gnu::visibility("hidden")]] Run::Session {
 public:
  Session();
  ~Session();

  uint64_t restore(const std::function<void(const Checkpoint&)>& put_back);
  void progress(const Progress& progress);
  void enter(Phase phase, const std::string& text);
  Outcome checkpoint(uint64_t step, const StateOf& state);
  bool finish(const StateOf& state);

  // Runs `work` where we still have a supervisor and are the process that it started.
  template <typename T, typename Work>
  T guarded(const char* what, T otherwise, Work work);

 private:
  // What is to be put back; its memory is the arena.
  struct Resume {
    uint64_t step = 0;
    uint32_t slot = 0;
  };

  void adopt_arena(const Json& message, std::vector<Fd> fds);
  void adopt_resume(const Json& message, std::vector<Fd> fds);
  [[noreturn]] void refuse(const std::string& reason);
  void reach(uint64_t step);
  void send_pending();
  void look_at_messages();
  void ask_for_arena(const std::vector<FileLayout>& files);
  bool take(uint64_t step, const StateOf& state, bool final, bool patient);
  bool try_to_take(uint64_t step, const State& state, bool final);
  bool stop_is_due(uint64_t step) const;
  double persist_seconds() const { return static_cast<double>(bitctl_control_persist_ns(&*control_)) / 1e9; }

  const pid_t pid_ = ::getpid();
  const int attempt_ = number_in({"BITCTL_ATTEMPT"}, 0);
  const int rank_ = number_in({"RANK", "SLURM_PROCID"}, 0);
  bool active_ = true;
  Link link_{environment_variable("BITCTL_SOCKET")};
  ControlPage control_;
  Fd wake_;
  ArenaLayout arena_;
  std::vector<SharedMemory> slots_;
  std::optional<Resume> resume_;
  std::optional<Due> due_;
  std::optional<Json> pending_;  // progress that was not told yet
  double last_sent_ = 0;
  bool watches_non_finite_ = false;  // watchdog.nan: rollback
  bool is_rolled_back_ = false;
  uint64_t step_ = 0;
  uint64_t request_ = 0;  // number of the last arena request
  Json wanted_;           // and what it asked for
  std::optional<double> refused_at_;
};

Run::Session::Session() {
  link_.send_patiently({{"type", "hello"},
                        {"protocol", kTrainerProtocol},
                        {"role", "trainer"},
                        {"attempt", attempt_},
                        {"token", environment_variable("BITCTL_TOKEN")},
                        {"rank", rank_},
                        {"world_size", number_in({"WORLD_SIZE", "SLURM_NTASKS"}, 1)},
                        {"pid", pid_},
                        {"restart", number_in({"TORCHELASTIC_RESTART_COUNT"}, 0)},
                        {"python", ""},
                        {"torch", ""},
                        {"threads", 0}});
  // However long the supervisor is stopped: to train without its answer could mean to train from the start
  // again.
  auto [welcome, fds] = link_.wait_for({"welcome", "refused"});
  if (get_text(welcome, "type") == "refused")
    throw std::runtime_error("refused by bitctl: " + get_text(welcome, "reason"));
  if (get_unsigned(welcome, "protocol") != static_cast<uint64_t>(kTrainerProtocol) || fds.size() < 2)
    throw std::runtime_error("bitctl is of another version than this library");
  control_ = checked(ControlPage::map(fds[0].get()));
  wake_ = std::move(fds[1]);
  due_.emplace(welcome.value("checkpoint_policy", Json::object()));
  if (const auto resume = welcome.find("resume"); resume != welcome.end() && resume->is_object()) {
    fds.erase(fds.begin(), fds.begin() + 2);
    try {
      adopt_resume(*resume, std::move(fds));
    } catch (const std::exception& error) {
      refuse(std::string("cannot be put back: ") + error.what());
    }
  }
  watches_non_finite_ = get_flag(welcome, "watch_non_finite");
}

Run::Session::~Session() {
  guarded("the end", 0, [&] {
    send_pending();
    return link_.send({{"type", "bye"}}) ? 0 : 1;
  });
}

template <typename T, typename Work>
T Run::Session::guarded(const char* what, T otherwise, Work work) {
  if (!active_ || ::getpid() != pid_) return otherwise;
  try {
    return work();
  } catch (const Closed&) {
    active_ = false;  // its writer ends this process at once
  } catch (const std::exception& error) {
    if (resume_) refuse(std::string("cannot be put back: ") + error.what());
    active_ = false;
    const std::string reason = std::string(what) + " failed (" + error.what() + ")";
    try {
      link_.send({{"type", "silent"}, {"reason", reason.substr(0, 500)}});
    } catch (const std::exception&) {
    }
    std::fprintf(stderr, "bitctl: %s; from here on this run is supervised by its exit alone\n",
                 reason.c_str());
  }
  return otherwise;
}

void Run::Session::adopt_arena(const Json& message, std::vector<Fd> fds) {
  auto layout = checked(arena_layout_from(message));
  std::vector<SharedMemory> slots;
  for (size_t i = 0; i < BITCTL_SLOTS && i < fds.size(); ++i)
    slots.push_back(checked(SharedMemory::map(fds[i].get(), layout.slot_bytes())));
  if (slots.size() != BITCTL_SLOTS) throw std::runtime_error("an arena without memory");
  arena_ = std::move(layout);
  slots_ = std::move(slots);
}

void Run::Session::adopt_resume(const Json& message, std::vector<Fd> fds) {
  resume_ = Resume{get_unsigned(message, "step").value_or(0),
                   static_cast<uint32_t>(get_unsigned(message, "slot").value_or(0)) % BITCTL_SLOTS};
  adopt_arena(message, std::move(fds));
}

void Run::Session::refuse(const std::string& reason) {
  const std::string text = "the checkpoint of step " + std::to_string(resume_->step) + " " + reason;
  std::fprintf(stderr, "bitctl: %s\n", text.c_str());
  try {
    link_.send_patiently(
        {{"type", "restore_failed"}, {"step", resume_->step}, {"reason", text.substr(0, 2000)}});
  } catch (const std::exception&) {
  }
  std::fflush(nullptr);
  ::_exit(kOwnFailure);
}

uint64_t Run::Session::restore(const std::function<void(const Checkpoint&)>& put_back) {
  while (resume_) {
    const bitctl_slot& slot = control_->slots[arena_.gen % BITCTL_BANKS][resume_->slot];
    int loaded = 0;
    while (loaded == 0)
      loaded = bitctl_snapshot_await(&*control_, arena_.gen, static_cast<int>(resume_->slot),
                                     arena_.slot_bytes(), kAwaitMs);
    if (loaded < 0) {
      // The supervisor is choosing another one, or ends this run where there is none.
      auto [message, fds] = link_.wait_for({"resume"});
      adopt_resume(message, std::move(fds));
      continue;
    }
    std::array<uint64_t, BITCTL_MAX_FILES> used{};
    for (size_t i = 0; i < used.size(); ++i) used[i] = bitctl_load64(&slot.used[i]);
    auto parts = checked(read_image(arena_, used.data(), slots_[resume_->slot].data()));
    Checkpoint saved;
    saved.step_ = resume_->step;
    saved.model_ = std::move(parts.model);
    saved.training_ = std::move(parts.training);
    saved.text_ = std::move(parts.text);
    try {
      put_back(saved);
    } catch (const std::exception& error) {
      refuse(std::string("does not fit this program: ") + error.what());
    }
    step_ = resume_->step;
    resume_.reset();
  }
  reach(step_);
  link_.send_patiently({{"type", "restored"}, {"step", step_}});
  return step_;
}

// One rank speaks for the run, and tells the others of what it was asked.
void Run::Session::reach(uint64_t step) {
  step_ = step;
  if (rank_ != 0) return;
  bitctl_control_set_step(&*control_, step);
  bitctl_control_agree(&*control_, step);
}

void Run::Session::progress(const Progress& progress) {
  reach(progress.step);
  Json message = {{"type", "progress"}, {"step", progress.step}};
  if (progress.total_steps) message["total_steps"] = *progress.total_steps;
  const auto add = [&](const char* name, const std::optional<double>& value) {
    if (value && std::isfinite(*value)) message[name] = *value;
  };
  add("loss", progress.loss);
  add("lr", progress.lr);
  add("epoch", progress.epoch);
  add("total_epochs", progress.total_epochs);
  const bool non_finite = progress.loss && !std::isfinite(*progress.loss);
  if (non_finite)
    message["non_finite_loss"] = std::isnan(*progress.loss) ? "NaN" : *progress.loss > 0 ? "inf" : "-inf";
  pending_ = std::move(message);
  if (non_finite || seconds_now() - last_sent_ >= kProgressPace) send_pending();
  if (non_finite && watches_non_finite_ && !is_rolled_back_) {
    is_rolled_back_ = true;
    send_pending();
    link_.send_patiently({{"type", "non_finite"}, {"step", step_}});
  }
  look_at_messages();
}

void Run::Session::enter(Phase phase, const std::string& text) {
  // There it counts, also where no message gets through at the moment.
  bitctl_control_enter(&*control_, static_cast<uint32_t>(phase), 0);
  link_.send({{"type", "phase"},
              {"phase", name_of(static_cast<bitctl::Phase>(phase))},
              {"text", text.substr(0, 200)}});
}

void Run::Session::send_pending() {
  if (!pending_ || !link_.send(*pending_)) return;
  pending_.reset();
  last_sent_ = seconds_now();
}

void Run::Session::look_at_messages() {
  for (auto& [message, fds] : link_.poll()) {
    const std::string type = get_text(message, "type");
    if (get_unsigned(message, "request") != request_) continue;
    if (type == "arena_ready") adopt_arena(message, std::move(fds));
    if (type == "arena_failed") {
      refused_at_ = seconds_now();
      std::fprintf(stderr, "bitctl: no memory for snapshots: %s\n", get_text(message, "reason").c_str());
    }
  }
}

void Run::Session::ask_for_arena(const std::vector<FileLayout>& files) {
  Json wanted = regions_for(files);
  if (wanted_ == wanted && (!refused_at_ || seconds_now() - *refused_at_ < kArenaPace)) return;
  wanted_ = std::move(wanted);
  refused_at_.reset();
  link_.send_patiently({{"type", "arena"}, {"request", ++request_}, {"files", wanted_}});
}

bool Run::Session::stop_is_due(uint64_t step) const {
  const uint64_t stop_at = bitctl_control_stop_at(&*control_);
  return stop_at != 0 && step >= stop_at;
}

Outcome Run::Session::checkpoint(uint64_t step, const StateOf& state) {
  reach(step);
  look_at_messages();
  const bool stop = stop_is_due(step);
  const uint64_t save_at = bitctl_control_save_at(&*control_);
  const bool requested = save_at != 0 && step >= save_at;
  bool taken = false;
  if (rank_ == 0) {
    const bool due = due_->is_due(step, seconds_now(), persist_seconds());
    if (due || stop || requested) {
      taken = take(step, state, false, stop);
    } else {
      // The memory is there by the time that the first one is due.
      if (slots_.empty() && wanted_.is_null()) ask_for_arena(checked(lay_out_state(state(), step)));
      return Outcome::not_due;
    }
    if (taken && requested) bitctl_control_clear_save_at(&*control_, save_at);
  }
  if (stop) {
    send_pending();
    link_.send_patiently({{"type", "stopping"}, {"step", step}, {"taken", taken}});
    return Outcome::stop;
  }
  if (rank_ != 0) return Outcome::not_due;
  return taken ? Outcome::taken : Outcome::deferred;
}

bool Run::Session::take(uint64_t step, const StateOf& state, bool final, bool patient) {
  const State now = state();
  while (!try_to_take(step, now, final)) {
    if (!patient || refused_at_ || is_rolled_back_) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    look_at_messages();
  }
  return true;
}

// False where no slot of a fitting arena is free.
bool Run::Session::try_to_take(uint64_t step, const State& state, bool final) {
  if (is_rolled_back_) return false;  // it would push a good one out of its slot
  const double started = seconds_now();
  const auto files = checked(lay_out_state(state, step));
  if (slots_.empty() || !holds(arena_, files)) {
    ask_for_arena(files);
    return false;
  }
  const int slot = bitctl_snapshot_begin(&*control_, arena_.gen, step, static_cast<uint32_t>(attempt_), 1);
  if (slot < 0) return false;
  const auto used = write_image(files, arena_, slots_[static_cast<size_t>(slot)].data());
  if (!used) {
    bitctl_snapshot_abandon(&*control_, arena_.gen, slot);
    throw std::runtime_error(used.error().message);
  }
  if (bitctl_snapshot_commit(&*control_, arena_.gen, slot, used->data(), used->size(), final ? 1 : 0,
                             wake_.get()) != 0)
    return false;  // taken from under us: the supervisor holds this process for dead
  due_->taken(step, seconds_now(), seconds_now() - started);
  if (const auto interval = due_->news(persist_seconds());
      interval && link_.send({{"type", "checkpoint_interval"}, {"seconds", *interval}}))
    due_->told(*interval);
  return true;
}

bool Run::Session::finish(const StateOf& state) {
  send_pending();
  if (rank_ != 0) return true;
  link_.send_patiently({{"type", "finish"}, {"step", step_}, {"model", true}});
  if (!take(step_, state, true, true)) {
    std::fprintf(stderr, "bitctl: the finished model is not on disk: no snapshot could be taken\n");
    return false;
  }
  const auto [answer, fds] = link_.wait_for({"finished", "finish_failed"});
  if (get_text(answer, "type") == "finished") return true;
  std::fprintf(stderr, "bitctl: the finished model is not on disk: %s\n", get_text(answer, "reason").c_str());
  return false;
}

Run::Run() {
  if (environment_variable("BITCTL_SOCKET").empty() || environment_variable("BITCTL_TOKEN").empty()) return;
  try {
    session_ = std::make_unique<Session>();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bitctl: %s; this run is supervised by its exit alone\n", error.what());
  }
}

Run::~Run() = default;

bool Run::is_supervised() const { return session_ != nullptr; }

uint64_t Run::restore(const std::function<void(const Checkpoint&)>& put_back) {
  if (!session_) return 0;
  return session_->guarded("restore", uint64_t{0}, [&] { return session_->restore(put_back); });
}

void Run::progress(const Progress& progress) {
  if (!session_) return;
  session_->guarded("progress", 0, [&] {
    session_->progress(progress);
    return 0;
  });
}

void Run::enter(Phase phase, const std::string& text) {
  if (!session_) return;
  session_->guarded("enter", 0, [&] {
    session_->enter(phase, text);
    return 0;
  });
}

Outcome Run::checkpoint(uint64_t step, const StateOf& state) {
  if (!session_) return Outcome::not_due;
  return session_->guarded("checkpoint", Outcome::not_due, [&] { return session_->checkpoint(step, state); });
}

bool Run::finish(const StateOf& state) {
  if (!session_) return true;
  return session_->guarded("finish", false, [&] { return session_->finish(state); });
}

}  // namespace bitctl::trainer
