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

uint32_t number_in(const Json& message, const char* key) {
  return static_cast<uint32_t>(get_unsigned(message, key).value_or(0));
}

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
      wake_(std::move(wake)),
      run_lock_(std::move(run_lock)),
      supervisor_(std::move(supervisor)),
      rank_watch_(loop_, pages_,
                  [this](const SlotView& slot, const std::string& reason, bool given_up) {
                    tell_failed(slot, {ErrorKind::invalid, reason}, given_up);
                  }),
      sentinel_(folder_, options_.isolation) {
  add_page(0, std::move(control));
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

void Writer::add_page(uint32_t rank, ControlPage page) {
  // A writer before us may have died while it persisted.
  for (auto& bank : page->slots)
    for (auto& slot : bank) bitctl_slot_move(&slot, BITCTL_SLOT_PERSISTING, BITCTL_SLOT_READY);
  pages_.add(rank, std::move(page));
}

// What waits in PERSISTING, where no trainer takes its place, for another try.
void Writer::release_held() {
  for (const SlotView& slot : pages_.slots()) pages_.move(slot, BITCTL_SLOT_PERSISTING, BITCTL_SLOT_READY);
}

void Writer::on_message() { receive(); }

bool Writer::receive() {
  auto message = receive_message(socket_.get());
  if (!message && message.error().kind == ErrorKind::timeout) return false;
  if (!message || message->closed()) {
    on_supervisor_gone();
    return false;
  }
  if (const auto json = parse_strict_json(message->bytes); json && json->is_object())
    handle(*json, std::move(message->fds));
  return true;
}

void Writer::handle(const Json& message, std::vector<Fd> fds) {
  const std::string type = get_text(message, "type");
  if (type == "rank") {
    if (auto page = ControlPage::map(fds.empty() ? -1 : fds.front().get()))
      add_page(number_in(message, "rank"), std::move(*page));
  } else if (type == "arena") {
    take_arena(message, std::move(fds));
  } else if (type == "drop_arena") {
    arenas_.erase({number_in(message, "rank"), number_in(message, "gen")});
  } else if (type == "trainer_dead") {
    set_trainer(0, 0);
    persist_next();
  } else if (type == "attempt") {
    resumed_from_ = get_unsigned(message, "resumed_from");
    set_trainer(static_cast<pid_t>(number_in(message, "leader")), number_in(message, "number"));
  } else if (type == "load") {
    load(message);
  } else if (type == "roll_back") {
    roll_back(get_unsigned(message, "before").value_or(0));
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
  memory_.post([this, rank = number_in(message, "rank"), layout = *layout,
                fds = std::make_shared<std::vector<Fd>>(std::move(fds))] {
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
    inbox_.post([this, rank, arena, status] {
      --allocating_;
      const uint32_t gen = arena->layout.gen;
      if (status) arenas_[{rank, gen}] = arena;
      if (status)
        send({{"type", "arena_ready"}, {"rank", rank}, {"gen", gen}});
      else
        send({{"type", "arena_failed"}, {"rank", rank}, {"gen", gen}, {"reason", status.error().message}});
      persist_next();
      go_on_rolling_back();
      leave_if_done();
    });
  });
}

// Each rank's files into slot 0 of its generation. No slot is complete before all of them are verified.
void Writer::load(const Json& message) {
  std::vector<std::shared_ptr<Arena>> arenas;
  std::vector<bitctl_slot*> slots;
  for (const Json& gen : message["gens"]) {
    const auto rank = static_cast<uint32_t>(slots.size());
    const auto found = arenas_.find({rank, gen.get<uint32_t>()});
    if (found == arenas_.end() || !pages_.contains(rank)) return;
    arenas.push_back(found->second);
    slots.push_back(&pages_.of(rank).slots[found->first.second % BITCTL_BANKS][0]);
  }
  const StepFolder step{get_unsigned(message, "step").value_or(0), get_text(message, "path")};
  memory_.post([this, arenas, slots, step] {
    Status status;
    const auto manifest = inspect_step(step);
    if (!manifest) status = tl::unexpected(manifest.error());
    for (uint32_t rank = 0; rank < slots.size() && status; ++rank)
      status = load_step(step, part_of(*manifest, rank), arenas[rank]->layout, arenas[rank]->slots[0].data(),
                         slots[rank]);
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
    for (bitctl_slot* slot : slots)
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
  release_held();
  for (const SlotView& slot : pages_.slots())
    if (slot.step >= before) pages_.move(slot, BITCTL_SLOT_READY, BITCTL_SLOT_FREE);
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
      for (const SlotView& slot : pages_.slots())
        if (bitctl_slot_is_complete(slot.state) && !(slot.state == BITCTL_SLOT_DURABLE && slot.step == kept))
          pages_.move(slot, slot.state, BITCTL_SLOT_FREE);
      send(answer);
    });
  });
}

void Writer::on_wake() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  // The supervisor had told us of every rank before that rank took anything.
  while (!orphaned_ && receive()) {
  }
  persist_next();
}

// The newest snapshot that all ranks have and that is not durable; older ones that still wait are superseded.
void Writer::persist_next() {
  if (persisting_) return;
  const RankViews ranks = pages_.look();
  rank_watch_.look(ranks);
  const auto set = newest_waiting_set(ranks);
  if (!set) return;
  Job job{*set, {}, {}, &pages_.run(), resumed_from_};
  for (const SlotView& slot : set->slots) {
    const auto arena = arenas_.find({slot.rank, slot.gen});
    if (arena == arenas_.end()) return;
    job.arenas.push_back(arena->second);
    job.parts.push_back(
        {arena->second->layout, arena->second->slots[slot.index].data(), pages_.slot_of(slot)});
  }
  if (!claim(*set)) return;
  // Only what is seen from here on is sure: beside a PERSISTING slot no trainer writes a READY one anew.
  const RankViews now = pages_.look();
  for (SlotView& chosen : job.set.slots) {
    const std::vector<SlotView>& slots = now.at(chosen.rank).slots;
    for (const SlotView& other : slots)
      if (other.seq < chosen.seq &&
          (other.state == BITCTL_SLOT_READY || other.state == BITCTL_SLOT_PERSISTING))
        pages_.move(other, other.state, BITCTL_SLOT_FREE);
    chosen = *std::ranges::find_if(
        slots, [&](const SlotView& s) { return s.bank == chosen.bank && s.index == chosen.index; });
  }
  loop_.cancel(retry_timer_);
  persisting_ = true;
  send({{"type", "started"}, {"step", set->step()}});
  disk_.post([this, job = std::move(job)] { persist(job); });
}

// All its slots are PERSISTING then; or none is, since a trainer has written one anew after the look at it.
// It wakes us when it has done so.
bool Writer::claim(const SlotSet& set) {
  const auto is_ours = [&](const SlotView& slot) {
    return slot.state == BITCTL_SLOT_PERSISTING || pages_.move(slot, slot.state, BITCTL_SLOT_PERSISTING);
  };
  const auto is_as_seen = [&](const SlotView& slot) {
    return bitctl_load64(&pages_.slot_of(slot).seq) == slot.seq;
  };
  size_t taken = 0;
  while (taken < set.slots.size() && is_ours(set.slots[taken])) ++taken;
  if (taken == set.slots.size() && std::ranges::all_of(set.slots, is_as_seen)) return true;
  for (size_t i = 0; i < taken; ++i)
    pages_.move(set.slots[i], BITCTL_SLOT_PERSISTING,
                set.slots[i].state == BITCTL_SLOT_DURABLE ? BITCTL_SLOT_DURABLE : BITCTL_SLOT_READY);
  return false;
}

// In the disk's thread.
void Writer::persist(const Job& job) {
  const SlotSet& set = job.set;
  const Mono started = loop_.now();
  auto image = image_of_slots(job.parts, folder_.id(), folder_.checkpoints());
  if (!image) {
    const Status status = forward(std::move(image));
    inbox_.post([this, set, status] { after_persist(set, status, false); });
    return;
  }
  SaveOptions save;
  // The final step keeps its trainer waiting; and what a dead trainer left is in danger, whoever trains by
  // now.
  Pace pace([this, attempt = set.of_rank_0().attempt, final = set.is_final()] {
    return running_attempt_ == attempt && !final;
  });
  save.quiet = [&] { return pace.quiet(); };
  save.writer_limit = from_seconds(options_.writer_limit);
  save.check_tensors = [this](const std::vector<FileImage>& files) {
    return check_with_engine(engine_, files);
  };
  save.on_committed = [&](const Saved& done) {
    const Manifest& manifest = done.manifest;
    const auto took = loop_.now() - started;
    bitctl_store64(&job.control->persist_ns, static_cast<uint64_t>(took.count()));
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
  if (job.resumed_from) scope.in_use.insert(*job.resumed_from);
  save.retain = [&] {
    scope.verified.insert(set.step());  // hashed from memory and written a moment ago
    tell_retained(retain(folder_.checkpoints(), options_.retention, scope).deleted, {});
  };
  auto saved = save_step(folder_.checkpoints(), *image, save);
  while (!saved && is_disk_full(saved.error()) &&
         make_room(scope, bytes_to_write(*image), saved.error().message))
    saved = save_step(folder_.checkpoints(), *image, save);
  const Status status = saved ? Status() : Status(tl::unexpected(saved.error()));
  if (saved && !saved->damaged.empty())
    spdlog::error("writer: {} is not what was saved there; step {} has it written anew", saved->damaged,
                  set.step());
  if (saved && !saved->reader_in_the_way.empty())
    inbox_.post([this, step = set.step(), reader = saved->reader_in_the_way] {
      send({{"type", "reader_in_the_way"}, {"step", step}, {"reader", reader}});
    });
  if (saved && set.is_final()) publish(set.step());
  const bool retry = !saved && worth_another_try(saved.error());
  inbox_.post([this, set, status, retry] { after_persist(set, status, retry); });
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

void Writer::after_persist(const SlotSet& set, const Status& status, bool retry) {
  persisting_ = false;
  // Of several ranks each by itself might take the place of what is to be tried again, and the others not: it
  // stays as it is until all have a newer one.
  const bool held = retry && set.slots.size() > 1;
  for (const SlotView& slot : set.slots)
    if (!held)
      pages_.move(slot, BITCTL_SLOT_PERSISTING,
                  status  ? BITCTL_SLOT_DURABLE
                  : retry ? BITCTL_SLOT_READY
                          : BITCTL_SLOT_FREE);
  if (status) {
    failures_ = 0;
  } else {
    ++failures_;
    tell_failed(set.of_rank_0(), status.error(), !retry);
  }
  if (leave_if_done()) return;
  if (rolling_back_) return go_on_rolling_back();
  if (failures_ > 0 && retry) {
    retry_timer_ = loop_.call_after(retry_delay(failures_), [this] { persist_next(); });
  } else {
    persist_next();
  }
}

void Writer::tell_failed(const SlotView& slot, const Error& error, bool final) {
  spdlog::error("writer: step {}: {}", slot.step, error.message);
  send({{"type", "failed"},
        {"step", slot.step},
        {"reason", error.message},
        {"errno", error.errno_value},
        {"final", final}});
  if (slot.final && final) send({{"type", "finish_failed"}, {"step", slot.step}, {"reason", error.message}});
}

// Once asked to leave: as soon as nothing waits to be written, or it could not be written three times.
bool Writer::leave_if_done() {
  if (!leaving_ || persisting_ || allocating_ > 0) return false;
  const auto waiting = newest_waiting_set(pages_.look());
  const bool lost = waiting && std::ranges::all_of(waiting->slots, [&](const SlotView& slot) {
                      return arenas_.contains({slot.rank, slot.gen});
                    });
  if (lost && failures_ < kTriesBeforeLeaving) return false;
  if (lost) spdlog::error("writer: the snapshot of step {} could not be put on disk", waiting->step());
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
  pages_.discard_unfinished();
  leaving_ = true;
  failures_ = 0;
  persist_next();
  leave_if_done();
}

}  // namespace bitctl
