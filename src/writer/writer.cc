#include "writer/writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/exit_code.h"
#include "base/replace_file.h"
#include "base/seqpacket.h"
#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "checkpoint/load.h"
#include "engine_api/engine_loader.h"
#include "launch/neighbours.h"
#include "writer/slot_image.h"
#include "writer/tensor_check.h"

namespace bitctl {
namespace {

using std::chrono::seconds;

constexpr int kTriesBeforeLeaving = 3;
constexpr size_t kStepsPerMessage = 1000;

// Beside a training a save takes what that leaves, and is as fast as the disk once the trainer is dead.
class Pace {
 public:
  explicit Pace(std::function<bool()> quiet) : quiet_(std::move(quiet)) {}
  ~Pace() {
    if (yields_) yield_session(false);
  }
  // From any thread.
  bool quiet() {
    const std::lock_guard lock(mutex_);  // two at once must not leave it as the slower one saw it
    const bool quiet = quiet_();
    if (std::exchange(yields_, quiet) != quiet) yield_session(quiet);
    return quiet;
  }

 private:
  std::function<bool()> quiet_;
  std::mutex mutex_;
  bool yields_ = false;
};

bool is_disk_full(const Error& error) { return error.errno_value == ENOSPC || error.errno_value == EDQUOT; }

// What a save needs room for; where something frozen is to be written after all, the next try asks for more.
uint64_t bytes_to_write(const StepImage& image) {
  uint64_t bytes = 0;
  for (const FileImage& file : image.files)
    if (!file.frozen) bytes += file.bytes();
  return bytes;
}

}  // namespace

Writer::Writer(WriterOptions options, Fd socket, ControlPage control, Fd wake, Fd run_lock, Fd supervisor)
    : options_(std::move(options)),
      folder_(options_.run_folder),
      inbox_(loop_),
      socket_(std::move(socket)),
      control_(std::move(control)),
      wake_(std::move(wake)),
      run_lock_(std::move(run_lock)),
      supervisor_(std::move(supervisor)),
      sentinel_(folder_, options_.isolation) {
  // A writer before us may have died while it persisted.
  for (auto& bank : control_->slots)
    for (auto& slot : bank) bitctl_slot_move(&slot, BITCTL_SLOT_PERSISTING, BITCTL_SLOT_READY);
  loop_.watch(socket_.get(), EPOLLIN, [this](uint32_t) { on_message(); });
  loop_.watch(wake_.get(), EPOLLIN, [this](uint32_t) { on_wake(); });
  loop_.watch(supervisor_.get(), EPOLLIN, [this](uint32_t) { on_supervisor_gone(); });
}

Writer::~Writer() = default;

int Writer::run() {
  disk_.post([this] {
    sweep_stages(folder_.checkpoints());
    const auto engine = load_engine(options_.engine);
    if (engine) engine_ = *engine;
    Json message = {{"type", "ready"},
                    {"tensor_check", engine ? fmt::format("torch {}", (*engine)->torch_version) : "none"}};
    if (!engine) message["reason"] = engine.error().message;
    inbox_.post([this, message] { send(message); });
  });
  loop_.run();
  return exit_code_;
}

void Writer::send(Json message) {
  if (orphaned_) return sentinel_.record(message);
  if (auto status = send_message(socket_.get(), dump_line(message)); !status)
    spdlog::warn("writer: {} not delivered: {}", get_text(message, "type"), status.error().message);
}

void Writer::on_message() {
  auto message = receive_message(socket_.get());
  if (!message && message.error().kind == ErrorKind::timeout) return;
  if (!message || message->closed()) return on_supervisor_gone();
  const auto json = parse_strict_json(message->bytes);
  if (!json || !json->is_object()) return;
  const std::string type = get_text(*json, "type");
  if (type == "arena") {
    take_arena(*json, std::move(message->fds));
  } else if (type == "drop_arena") {
    arenas_.erase(static_cast<uint32_t>(get_unsigned(*json, "gen").value_or(0)));
  } else if (type == "trainer_dead") {
    set_trainer(0, 0);
    persist_next();
  } else if (type == "attempt") {
    resumed_from_.reset();
    set_trainer(static_cast<pid_t>(get_unsigned(*json, "leader").value_or(0)),
                static_cast<uint32_t>(get_unsigned(*json, "number").value_or(0)));
  } else if (type == "load") {
    load(*json);
  } else if (type == "roll_back") {
    roll_back(get_unsigned(*json, "before").value_or(0));
  } else if (type == "shutdown") {
    leaving_ = true;
    failures_ = 0;
    persist_next();
    leave_if_done();
  }
}

void Writer::set_trainer(pid_t leader, uint32_t attempt) {
  sentinel_.set_leader(leader);
  running_attempt_ = attempt;
}

void Writer::take_arena(const Json& message, std::vector<Fd> fds) {
  const auto layout = arena_layout_from(message);
  if (!layout || fds.size() != BITCTL_SLOTS) return;
  ++allocating_;
  memory_.post([this, layout = *layout, fds = std::make_shared<std::vector<Fd>>(std::move(fds))] {
    auto arena = std::make_shared<Arena>();
    arena->layout = layout;
    Status status;
    for (size_t i = 0; i < BITCTL_SLOTS && status; ++i) {
      const int fd = (*fds)[i].get();
      // A writer before us may have allocated and sealed it.
      if (!check_memory(fd, layout.slot_bytes())) status = allocate_memory(fd, layout.slot_bytes());
      if (!status) break;
      auto memory = SharedMemory::map(fd, layout.slot_bytes());
      if (memory)
        arena->slots[i] = std::move(*memory);
      else
        status = forward(std::move(memory));
    }
    inbox_.post([this, arena, status] {
      --allocating_;
      const uint32_t gen = arena->layout.gen;
      if (status) arenas_[gen] = arena;
      if (status)
        send({{"type", "arena_ready"}, {"gen", gen}});
      else
        send({{"type", "arena_failed"}, {"gen", gen}, {"reason", status.error().message}});
      persist_next();
      go_on_rolling_back();
      leave_if_done();
    });
  });
}

void Writer::load(const Json& message) {
  const auto found = arenas_.find(static_cast<uint32_t>(get_unsigned(message, "gen").value_or(0)));
  if (found == arenas_.end()) return;
  const auto index = static_cast<uint32_t>(get_unsigned(message, "slot").value_or(0)) % BITCTL_SLOTS;
  const StepFolder step{get_unsigned(message, "step").value_or(0), get_text(message, "path")};
  memory_.post([this, arena = found->second, index, step] {
    bitctl_slot* slot = &control_->slots[arena->layout.gen % BITCTL_BANKS][index];
    Status status;
    const auto manifest = inspect_step(step);
    if (manifest)
      status = load_step(step, *manifest, arena->layout, arena->slots[index].data(), slot);
    else
      status = tl::unexpected(manifest.error());
    Json answer = {{"type", "loaded"}, {"step", step.step}};
    if (!status) {
      const bool damaged = status.error().kind == ErrorKind::damaged;
      answer = {{"type", "load_failed"},
                {"step", step.step},
                {"damaged", damaged},
                {"reason", status.error().message}};
      if (damaged) {
        const auto lock =
            FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::exclusive, seconds(2));
        if (const auto aside = set_aside(step.path)) answer["aside"] = *aside;
      }
    }
    bitctl_slot_move(slot, BITCTL_SLOT_LOADING, status ? BITCTL_SLOT_DURABLE : BITCTL_SLOT_BROKEN);
    inbox_.post([this, answer, step, loaded = status.has_value()] {
      if (loaded) resumed_from_ = step.step;
      send(answer);
    });
  });
}

// Snapshots of that step and after it are given up; those before it go to the disk first, since there it is
// known whether their tensors are finite. The trainer is dead.
void Writer::roll_back(uint64_t before) {
  rolling_back_ = before;
  failures_ = 0;
  go_on_rolling_back();
}

void Writer::go_on_rolling_back() {
  if (!rolling_back_ || persisting_ || allocating_ > 0) return;
  const uint64_t before = *rolling_back_;
  for (const SlotView& slot : slots_of(*control_))
    if (slot.state == BITCTL_SLOT_READY && slot.step >= before)
      bitctl_slot_move(slot_of(slot), BITCTL_SLOT_READY, BITCTL_SLOT_FREE);
  if (failures_ == 0) persist_next();
  if (persisting_) return;
  rolling_back_.reset();
  disk_.post([this, before] {
    std::vector<StepFolder> newer;
    const auto chosen = newest_finite_step(folder_.checkpoints(), before, newer);
    const auto lock = FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::exclusive, seconds(2));
    Json aside = Json::array();
    for (const StepFolder& folder : newer)
      if (const auto path = set_aside(folder.path)) aside.push_back(*path);
    Json answer = {{"type", "rolled_back"}, {"from", before}, {"aside", aside}};
    if (chosen) answer["step"] = chosen->step;
    inbox_.post([this, answer, kept = chosen ? std::optional(chosen->step) : std::nullopt] {
      for (const SlotView& slot : slots_of(*control_))
        if (bitctl_slot_is_complete(slot.state) && !(slot.state == BITCTL_SLOT_DURABLE && slot.step == kept))
          bitctl_slot_move(slot_of(slot), slot.state, BITCTL_SLOT_FREE);
      send(answer);
    });
  });
}

void Writer::on_wake() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  persist_next();
}

// The newest READY snapshot; older ones that still wait are superseded by it.
void Writer::persist_next() {
  if (persisting_) return;
  auto ready = newest_ready(*control_);
  if (!ready) return;
  const auto arena = arenas_.find(ready->gen);
  if (arena == arenas_.end()) return;
  if (!bitctl_slot_move(slot_of(*ready), BITCTL_SLOT_READY, BITCTL_SLOT_PERSISTING)) return;
  // The trainer may have written it once more between the look and the move.
  for (const SlotView& now : slots_of(*control_))
    if (now.bank == ready->bank && now.index == ready->index) ready = now;
  for (const SlotView& other : slots_of(*control_))
    if (other.state == BITCTL_SLOT_READY && other.seq < ready->seq)
      bitctl_slot_move(slot_of(other), BITCTL_SLOT_READY, BITCTL_SLOT_FREE);
  loop_.cancel(retry_timer_);
  persisting_ = true;
  send({{"type", "started"}, {"step", ready->step}});
  disk_.post([this, slot = *ready, arena = arena->second, resumed_from = resumed_from_] {
    persist(slot, arena, resumed_from);
  });
}

// In the disk's thread.
void Writer::persist(SlotView slot, std::shared_ptr<Arena> arena, std::optional<uint64_t> resumed_from) {
  const Mono started = loop_.now();
  auto image = image_of_slot(arena->layout, arena->slots[slot.index].data(), *slot_of(slot), folder_.id(),
                             folder_.checkpoints());
  if (!image) {
    const Status status = forward(std::move(image));
    inbox_.post([this, slot, status] { after_persist(slot, status, false); });
    return;
  }
  SaveOptions save;
  // The final step keeps its trainer waiting; and what a dead trainer left is in danger, whoever trains by
  // now.
  Pace pace([this, slot] { return running_attempt_ == slot.attempt && !slot.final; });
  save.quiet = [&] { return pace.quiet(); };
  save.writer_limit = from_seconds(options_.writer_limit);
  save.check_tensors = [this](const std::vector<FileImage>& files) {
    return check_with_engine(engine_, files);
  };
  save.on_committed = [&](const Saved& done) {
    const Manifest& manifest = done.manifest;
    const auto took = loop_.now() - started;
    bitctl_store64(&control_->persist_ns, static_cast<uint64_t>(took.count()));
    Json message = {{"type", "committed"},
                    {"step", manifest.step},
                    {"bytes", manifest.bytes()},
                    {"written", done.written},
                    {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(took).count()},
                    {"unchanged", done.unchanged},
                    {"tensor_check", manifest.tensor_check},
                    {"non_finite", manifest.non_finite.size()}};
    inbox_.post([this, message] { send(message); });
  };
  RetentionScope scope{.run = folder_.id()};
  if (resumed_from) scope.in_use.insert(*resumed_from);
  save.retain = [&] {
    scope.verified.insert(slot.step);  // hashed from memory and written a moment ago
    tell_retained(retain(folder_.checkpoints(), options_.retention, scope).deleted, {});
  };
  auto saved = save_step(folder_.checkpoints(), *image, save);
  while (!saved && is_disk_full(saved.error()) &&
         make_room(scope, bytes_to_write(*image), saved.error().message))
    saved = save_step(folder_.checkpoints(), *image, save);
  const Status status = saved ? Status() : Status(tl::unexpected(saved.error()));
  if (saved && !saved->damaged.empty())
    spdlog::error("writer: {} is not what was saved there; step {} has it written anew", saved->damaged,
                  slot.step);
  if (saved && !saved->reader_in_the_way.empty())
    inbox_.post([this, step = slot.step, reader = saved->reader_in_the_way] {
      send({{"type", "reader_in_the_way"}, {"step", step}, {"reader", reader}});
    });
  if (saved && slot.final) publish(slot.step);
  const bool retry = !saved && worth_another_try(saved.error());
  inbox_.post([this, slot, status, retry] { after_persist(slot, status, retry); });
}

void Writer::tell_retained(const std::vector<uint64_t>& deleted, const std::string& reason) {
  for (size_t at = 0; at < deleted.size(); at += kStepsPerMessage) {
    const size_t count = std::min(kStepsPerMessage, deleted.size() - at);
    Json message = {{"type", "retained"},
                    {"deleted", std::vector<uint64_t>(deleted.begin() + at, deleted.begin() + at + count)}};
    if (!reason.empty()) message["reason"] = reason;
    inbox_.post([this, message] { send(message); });
  }
}

// In the disk's thread, after a save for which there was no room: whether something older went.
bool Writer::make_room(RetentionScope scope, uint64_t bytes, const std::string& reason) {
  const auto good = find_verified(folder_.checkpoints(), scope);
  if (!good) return false;
  scope.verified.insert(*good);
  const auto lock = FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::exclusive, seconds(2));
  if (!lock) return false;  // somebody loads; the next try comes soon
  const auto deleted =
      retain(folder_.checkpoints(), under_disk_pressure(options_.retention), scope, system_file_ops(), bytes)
          .deleted;
  tell_retained(deleted, reason);
  return !deleted.empty();
}

// In the disk's thread, after the final step is durable.
void Writer::publish(uint64_t step) {
  auto lock = FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::exclusive, seconds(2));
  const auto status = publish_model(folder_.path(), folder_.checkpoints() + "/" + step_folder_name(step));
  Json message = {{"type", status ? "finished" : "finish_failed"}, {"step", step}};
  if (status)
    message["path"] = folder_.model();
  else
    message["reason"] = status.error().message;
  inbox_.post([this, message] { send(message); });
}

void Writer::after_persist(SlotView slot, const Status& status, bool retry) {
  persisting_ = false;
  if (status) {
    failures_ = 0;
    bitctl_slot_move(slot_of(slot), BITCTL_SLOT_PERSISTING, BITCTL_SLOT_DURABLE);
  } else {
    ++failures_;
    spdlog::error("writer: step {}: {}", slot.step, status.error().message);
    bitctl_slot_move(slot_of(slot), BITCTL_SLOT_PERSISTING, retry ? BITCTL_SLOT_READY : BITCTL_SLOT_FREE);
    send({{"type", "failed"},
          {"step", slot.step},
          {"reason", status.error().message},
          {"errno", status.error().errno_value},
          {"final", !retry}});
    if (slot.final && !retry)
      send({{"type", "finish_failed"}, {"step", slot.step}, {"reason", status.error().message}});
  }
  if (leave_if_done()) return;
  if (rolling_back_) return go_on_rolling_back();
  if (failures_ > 0 && retry) {
    retry_timer_ = loop_.call_after(retry_delay(failures_), [this] { persist_next(); });
  } else {
    persist_next();
  }
}

// Once asked to leave: as soon as nothing waits to be written, or it could not be written three times.
bool Writer::leave_if_done() {
  if (!leaving_ || persisting_ || allocating_ > 0) return false;
  const auto waiting = newest_ready(*control_);
  const bool lost = waiting && arenas_.contains(waiting->gen);
  if (lost && failures_ < kTriesBeforeLeaving) return false;
  if (lost) spdlog::error("writer: the snapshot of step {} could not be put on disk", waiting->step);
  exit_code_ = lost ? kFailed : kOk;
  if (orphaned_) sentinel_.tell_the_end();
  loop_.stop();
  return true;
}

void Writer::on_supervisor_gone() {
  if (orphaned_) return;
  orphaned_ = true;
  loop_.unwatch(supervisor_.get());
  loop_.unwatch(socket_.get());
  spdlog::warn("writer: the supervisor is dead; ending its trainer");
  sentinel_.end_tree();
  running_attempt_ = 0;
  discard_unfinished(*control_);
  leaving_ = true;
  failures_ = 0;
  persist_next();
  leave_if_done();
}

}  // namespace bitctl
