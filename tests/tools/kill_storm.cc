// kill_storm BITCTL_WRITER [--kills N] [--seed N] [--folder DIR]: the real writer and a trainer with 1 MiB of
// state, one of them killed at a random moment, N times; this program is the supervisor. After each kill:
//   memory  the newest complete snapshot is whole, and no older than the last one that the trainer was told
//   of disk    what verifies as newest is whole, and no older than the last step acknowledged
// and at the end the newest snapshot is on disk. RESULT …; exit code 1 with the first violation.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <random>

#include <CLI/CLI.hpp>

#include "base/lock.h"
#include "base/seqpacket.h"
#include "checkpoint/arena.h"
#include "checkpoint/catalog.h"
#include "checkpoint/writer_link.h"
#include "launch/spawn.h"
#include "run/run_folder.h"
#include "safetensors/header.h"
#include "snapshot/snapshot.h"
#include "temporary_folder.h"

using namespace bitctl;

namespace {

constexpr uint32_t kGen = 1;
constexpr uint64_t kStateBytes = uint64_t{1} << 20;

// Two files, one tensor each, every byte of it fill_of(step).
struct State {
  ArenaLayout layout;
  std::vector<std::string> headers;
  std::vector<uint64_t> used;

  State() {
    layout.gen = kGen;
    add("model.safetensors", kStateBytes);
    add("training.safetensors", 5000);
  }
  void add(const std::string& name, uint64_t bytes) {
    headers.push_back(*build_header({{"w", "U8", {static_cast<int64_t>(bytes)}, 0, bytes}}, {}, kArenaPage));
    layout.files.push_back({name, headers.back().size(), (bytes + kArenaPage - 1) / kArenaPage * kArenaPage});
    used.push_back(headers.back().size() + bytes);
  }
};

char fill_of(uint64_t step) { return static_cast<char>(step * 37 + 11); }

bool holds_only(std::string_view bytes, char fill) {
  return std::all_of(bytes.begin(), bytes.end(), [&](char c) { return c == fill; });
}

// Snapshots as fast as the slots allow, until it is killed. `told`: every step whose snapshot is complete.
[[noreturn]] void train(const State& state, int control_fd, const std::vector<int>& slots, int wake, int told,
                        uint64_t step, uint32_t attempt, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  auto control = ControlPage::map(control_fd);
  std::vector<SharedMemory> memory;
  for (const int fd : slots) memory.push_back(*SharedMemory::map(fd, state.layout.slot_bytes()));
  std::mt19937 random(static_cast<unsigned>(step));
  for (;; ++step) {
    const int slot = bitctl_snapshot_begin(&**control, kGen, step, attempt, 1);
    if (slot >= 0) {
      for (size_t i = 0; i < state.headers.size(); ++i) {
        char* at = memory[static_cast<size_t>(slot)].data() + state.layout.offset_of(i);
        std::memcpy(at, state.headers[i].data(), state.headers[i].size());
        std::memset(at + state.headers[i].size(), fill_of(step), state.used[i] - state.headers[i].size());
      }
      if (bitctl_snapshot_commit(&**control, kGen, slot, state.used.data(), state.used.size(), 0, wake) ==
              0 &&
          ::write(told, &step, sizeof step) != sizeof step)
        ::_exit(1);
    }
    ::usleep(random() % 4000);
  }
}

class Storm {
 public:
  Storm(std::string writer, const std::string& folder, uint64_t seed)
      : writer_program_(std::move(writer)), folder_(folder + "/run"), random_(seed) {
    std::filesystem::create_directories(folder_.checkpoints());
    std::filesystem::create_directories(folder_.logs());
    auto control = ControlPage::create();
    control_ = std::move(control->first);
    control_fd_ = std::move(control->second);
    wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    lock_ = Fd(::open(folder_.pulse_lock().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    for (size_t i = 0; i < BITCTL_SLOTS; ++i) {
      slots_.push_back(std::move(*create_memory("storm", state_.layout.slot_bytes())));
      if (!allocate_memory(slots_[i].get(), state_.layout.slot_bytes())) std::abort();
      memory_.push_back(*SharedMemory::map(slots_[i].get(), state_.layout.slot_bytes()));
    }
    if (::pipe2(told_, O_NONBLOCK | O_CLOEXEC) != 0) std::abort();
  }
  ~Storm() {
    kill_trainer();
    kill_writer();
  }

  int run(int kills) {
    start_writer();
    start_trainer();
    for (int n = 0; n < kills && problem_.empty(); ++n) {
      // Mostly in the middle of something; now and then there is time for several saves.
      listen_for(random_() % (n % 4 == 0 ? 200 : 40));
      if (random_() % 2 == 0) {
        kill_trainer();
        listen_for(0);
        look_at_memory();
        look_at_disk();
        send({{"type", "trainer_dead"}});
        start_trainer();
        ++trainers_;
      } else {
        kill_writer();
        look_at_disk();
        start_writer();
        ++writers_;
      }
    }
    if (problem_.empty()) end();
    if (!problem_.empty()) fmt::print("{}\n", problem_);
    fmt::print("RESULT kills={} trainer={} writer={} snapshots={} commits={} violations={}\n",
               trainers_ + writers_, trainers_, writers_, snapshots_, commits_, problem_.empty() ? 0 : 1);
    return problem_.empty() ? 0 : 1;
  }

 private:
  void start_writer() {
    auto pair = seqpacket_pair();
    WriterOptions options;
    options.run_folder = folder_.path();
    options.supervisor = ::getpid();
    options.retention.keep_last = 2;
    SpawnPlan plan;
    plan.argv = {writer_program_, to_text(options)};
    plan.cwd = "/";
    plan.output = folder_.own_log();
    plan.inherited = {pair->second.get(), control_fd_.get(), wake_.get(), lock_.get()};
    auto spawned = spawn(plan);
    if (!spawned) return tell(spawned.error().message);
    writer_ = std::move(*spawned);
    link_ = std::move(pair->first);
    send({{"type", "arena"}, {"gen", kGen}, {"files", to_json(state_.layout)["files"]}},
         {slots_[0].get(), slots_[1].get()});
  }

  void start_trainer() {
    discard_unfinished(*control_);
    const auto newest = newest_complete(*control_);
    const uint64_t next = (newest ? newest->step : 0) + 1;
    const pid_t parent = ::getpid();
    trainer_ = ::fork();
    if (trainer_ == 0)
      train(state_, control_fd_.get(), {slots_[0].get(), slots_[1].get()}, wake_.get(), told_[1], next,
            static_cast<uint32_t>(trainers_ + 1), parent);
  }

  void kill_trainer() {
    if (trainer_ <= 0) return;
    ::kill(trainer_, SIGKILL);
    ::waitpid(trainer_, nullptr, 0);
    trainer_ = 0;
  }

  void kill_writer() {
    if (!writer_.pidfd) return;
    ::kill(writer_.pid, SIGKILL);
    await_writer();
    hear();  // what it said last
    link_.reset();
  }

  void await_writer() {
    pollfd fd{writer_.pidfd.get(), POLLIN, 0};
    ::poll(&fd, 1, -1);
    ended_ = reap(writer_.pidfd.get());
    writer_.pidfd.reset();
  }

  void send(const Json& message, const std::vector<int>& fds = {}) {
    static_cast<void>(send_message(link_.get(), dump_line(message), fds));
  }

  void listen_for(unsigned ms) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
    do {
      pollfd fds[] = {{link_.get(), POLLIN, 0}, {told_[0], POLLIN, 0}};
      ::poll(fds, 2, std::min(ms, 5u));
      hear();
    } while (std::chrono::steady_clock::now() < end);
  }

  void hear() {
    for (uint64_t step = 0; ::read(told_[0], &step, sizeof step) == sizeof step; ++snapshots_)
      told_step_ = step;
    while (link_) {
      const auto message = receive_message(link_.get());
      if (!message || message->closed()) return;
      const auto json = parse_strict_json(message->bytes);
      const std::string type = get_text(*json, "type");
      if (type == "committed") {
        acknowledged_ = std::max(acknowledged_, *get_unsigned(*json, "step"));
        ++commits_;
      } else if (type == "failed" || type == "arena_failed") {
        tell(message->bytes);
      }
    }
  }

  // The trainer is dead: nobody writes into what is complete.
  void look_at_memory() {
    const auto newest = newest_complete(*control_);
    if (!newest) {
      if (told_step_ > 0) tell("no snapshot left in memory");
      return;
    }
    if (newest->step < told_step_)
      tell(fmt::format("snapshot {} is the newest, {} was complete", newest->step, told_step_));
    for (size_t i = 0; i < state_.headers.size(); ++i) {
      const std::string_view file(memory_[newest->index].data() + state_.layout.offset_of(i), state_.used[i]);
      const size_t head = state_.headers[i].size();
      if (file.substr(0, head) != state_.headers[i] || !holds_only(file.substr(head), fill_of(newest->step)))
        tell(fmt::format("the snapshot of step {} is torn", newest->step));
    }
  }

  void look_at_disk() {
    const uint64_t due = acknowledged_;
    // While the writer lives, its retention waits for this.
    const auto lock =
        FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::shared, std::chrono::seconds(60));
    const auto folders = step_folders(folder_.checkpoints());
    if (folders.empty()) {
      if (due > 0) tell(fmt::format("step {} was acknowledged, nothing is there", due));
      return;
    }
    const StepFolder& newest = folders.front();
    if (newest.step < due) tell(fmt::format("step {} is the newest, {} was acknowledged", newest.step, due));
    if (const auto verified = verify_step(newest); !verified) return tell(verified.error().message);
    for (size_t i = 0; i < state_.headers.size(); ++i)
      if (!holds_only(
              read_text(newest.path + "/" + state_.layout.files[i].name).substr(state_.headers[i].size()),
              fill_of(newest.step)))
        tell(newest.path + " verifies and is wrong");
  }

  void end() {
    kill_trainer();
    hear();
    look_at_memory();
    discard_unfinished(*control_);
    send({{"type", "trainer_dead"}});
    send({{"type", "shutdown"}});
    await_writer();
    hear();
    if (!ended_ || ended_->as_exit_code() != 0) tell("the writer did not end well");
    look_at_disk();
    if (acknowledged_ < told_step_)
      tell(fmt::format("snapshot {} never came to the disk; {} did", told_step_, acknowledged_));
  }

  void tell(const std::string& what) {
    if (problem_.empty()) problem_ = fmt::format("after {} kills: {}", trainers_ + writers_, what);
  }

  State state_;
  std::string writer_program_;
  RunFolder folder_;
  std::mt19937_64 random_;
  ControlPage control_;
  Fd control_fd_, wake_, lock_, link_;
  std::vector<Fd> slots_;
  std::vector<SharedMemory> memory_;
  int told_[2] = {-1, -1};
  Spawned writer_;
  std::optional<ExitStatus> ended_;
  pid_t trainer_ = 0;
  uint64_t told_step_ = 0, acknowledged_ = 0, snapshots_ = 0, commits_ = 0;
  int trainers_ = 0, writers_ = 0;
  std::string problem_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string writer, folder;
  int kills = 200;
  uint64_t seed = 1;
  CLI::App app;
  app.add_option("writer", writer)->required();
  app.add_option("--kills", kills);
  app.add_option("--seed", seed);
  app.add_option("--folder", folder);
  CLI11_PARSE(app, argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  const TemporaryFolder own(folder.empty() ? std::filesystem::temp_directory_path()
                                           : std::filesystem::path(folder));
  return Storm(std::filesystem::absolute(writer), own.path(), seed).run(kills);
}
