#include "supervise/snapshot_keeper.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/install_layout.h"
#include "base/lock.h"
#include "base/seqpacket.h"
#include "checkpoint/folders.h"
#include "checkpoint/load.h"

namespace bitctl {
namespace {

constexpr int kMaxWriterDeaths = 5;  // without a commit between them
constexpr int kMaxEarlyDeaths = 2;   // then it is started without the engine, which may be what kills it
constexpr Duration kWriterBackoff = std::chrono::milliseconds(100);

bool is_busy(uint32_t state) {
  return state == BITCTL_SLOT_WRITING || state == BITCTL_SLOT_PERSISTING || state == BITCTL_SLOT_LOADING;
}

}  // namespace

SnapshotKeeper::SnapshotKeeper(EventLoop& loop, RunFolder folder, WriterOptions options, int lock_fd,
                               Callbacks callbacks)
    : loop_(loop),
      folder_(std::move(folder)),
      options_(std::move(options)),
      lock_fd_(lock_fd),
      callbacks_(std::move(callbacks)) {}

SnapshotKeeper::~SnapshotKeeper() {
  if (link_) loop_.unwatch(link_.get());
  if (writer_.pidfd) loop_.unwatch(writer_.pidfd.get());
  loop_.cancel(writer_timer_);
}

Status SnapshotKeeper::start() {
  auto control = ControlPage::create();
  if (!control) return forward(std::move(control));
  control_ = std::move(control->first);
  control_fd_ = std::move(control->second);
  wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  on_disk_ = step_folders(folder_.checkpoints());
  // What a killed trainer or writer left half-made; nobody works in these two yet.
  sweep_stages(folder_.checkpoints() + "/.side");
  sweep_stages(folder_.path());
  return spawn_writer();
}

Status SnapshotKeeper::spawn_writer() {
  auto pair = seqpacket_pair();
  if (!pair) return forward(std::move(pair));
  SpawnPlan plan;
  plan.argv = {install_layout().writer, to_text(options_)};
  plan.env = current_environment();
  plan.cwd = "/";
  plan.output = folder_.own_log();
  plan.inherited = {pair->second.get(), control_fd_.get(), wake_.get(), lock_fd_};
  plan.dies_with_us = false;  // it has work to do after our death
  auto spawned = spawn(plan);
  if (!spawned) return forward(std::move(spawned));
  writer_ = std::move(*spawned);
  link_ = std::move(pair->first);
  writer_ready_ = false;
  loop_.watch(writer_.pidfd.get(), EPOLLIN, [this](uint32_t) { on_writer_exit(); });
  loop_.watch(link_.get(), EPOLLIN, [this](uint32_t) { on_writer_message(); });
  callbacks_.on_writer(writer_.pid);
  for (auto& [gen, generation] : generations_) {
    generation.ready = false;
    generation.for_load = generation.for_load || (loading_ && loading_->gen == gen);
    send({{"type", "arena"}, {"gen", gen}, {"files", to_json(generation.layout)["files"]}}, slot_fds(gen));
  }
  if (leader_ > 0) send({{"type", "attempt"}, {"number", attempt_}, {"leader", leader_}});
  if (rolling_back_) send({{"type", "roll_back"}, {"before", *rolling_back_}});
  return {};
}

void SnapshotKeeper::on_writer_exit() {
  on_writer_message();  // what it said last
  const auto status = reap(writer_.pidfd.get());
  if (!status) return;
  loop_.unwatch(writer_.pidfd.get());
  loop_.unwatch(link_.get());
  writer_.pidfd.reset();
  link_.reset();
  if (draining_) return drained(*status == ExitStatus{false, 0});
  callbacks_.record("writer_died", {{"code", status->as_exit_code()}});
  early_deaths_ = writer_ready_ ? 0 : early_deaths_ + 1;
  if (early_deaths_ >= kMaxEarlyDeaths) options_.engine.clear();
  if (++writer_deaths_ >= kMaxWriterDeaths)
    return lose_writer(fmt::format("the checkpoint writer died {} times without saving anything; see {}",
                                   writer_deaths_, folder_.own_log()));
  if (writer_deaths_ == 1) return start_writer_again();
  writer_timer_ =
      loop_.call_after(kWriterBackoff * (1 << (writer_deaths_ - 2)), [this] { start_writer_again(); });
}

void SnapshotKeeper::start_writer_again() {
  writer_timer_ = 0;
  if (const auto again = spawn_writer(); !again)
    lose_writer("no checkpoint writer: " + again.error().message);
}

void SnapshotKeeper::on_writer_message() {
  while (link_) {
    auto message = receive_message(link_.get());
    if (!message) return;
    // Its end comes by its pidfd; until then a closed link would be ready for ever.
    if (message->closed()) return loop_.unwatch(link_.get());
    if (const auto json = parse_strict_json(message->bytes); json && json->is_object()) handle(*json);
  }
}

void SnapshotKeeper::send(const Json& message, const std::vector<int>& fds) {
  if (!link_) return;
  if (const auto status = send_message(link_.get(), dump_line(message), fds); !status)
    spdlog::warn("writer: {} not delivered: {}", get_text(message, "type"), status.error().message);
}

void SnapshotKeeper::handle(const Json& message) {
  const std::string type = get_text(message, "type");
  const uint64_t step = get_unsigned(message, "step").value_or(0);
  Json fields = message;
  fields.erase("type");
  if (type == "ready") {
    writer_ready_ = true;
    callbacks_.record("writer_ready", fields);
  } else if (type == "arena_ready" || type == "arena_failed") {
    const auto found = generations_.find(static_cast<uint32_t>(get_unsigned(message, "gen").value_or(0)));
    if (found == generations_.end()) return;
    Generation& generation = found->second;
    generation.ready = type == "arena_ready";
    const std::string failure = generation.ready ? "" : get_text(message, "reason", "no memory");
    if (!generation.ready) callbacks_.record("arena_failed", fields);
    if (std::exchange(generation.for_load, false)) {
      if (generation.ready) return begin_load(found->first);
      drop_generation(found->first);
      return no_resume("no memory to load the checkpoint: " + failure);
    }
    if (const int request = std::exchange(generation.request, 0); request > 0)
      callbacks_.on_arena(request, generation.ready ? found->first : 0, failure);
    if (!generation.ready) drop_generation(found->first);
  } else if (type == "committed") {
    std::erase_if(on_disk_, [&](const StepFolder& f) { return f.step == step; });
    on_disk_.push_back({step, folder_.checkpoints() + "/" + step_folder_name(step)});
    std::sort(on_disk_.begin(), on_disk_.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
    longest_save_ =
        std::max<Duration>(longest_save_, std::chrono::milliseconds(get_unsigned(message, "ms").value_or(0)));
    writer_deaths_ = 0;
    callbacks_.record("committed", fields);
    drop_old_generations();
  } else if (type == "retained") {
    std::erase_if(on_disk_, [&](const StepFolder& f) {
      return std::find(message["deleted"].begin(), message["deleted"].end(), f.step) !=
             message["deleted"].end();
    });
    callbacks_.record("retained", fields);
  } else if (type == "failed") {
    callbacks_.record("persist_failed", fields);
    // The image that the attempt was to begin with is not what it says it is.
    if (get_flag(message, "final") && offered_ && offered_->source == "memory" && offered_->step == step)
      load_next_candidate();
  } else if (type == "reader_in_the_way") {
    callbacks_.record("reader_in_the_way", fields);
  } else if (type == "loaded") {
    loading_.reset();
  } else if (type == "load_failed") {
    fields.erase("damaged");
    callbacks_.record("checkpoint_bad", fields);
    loading_.reset();
    // A disk or a lock that fails says nothing about the checkpoint; an older one would undo what it holds.
    if (!get_flag(message, "damaged")) return no_resume(get_text(message, "reason"));
    std::erase_if(on_disk_, [&](const StepFolder& f) { return f.step == step; });
    load_next_candidate();
  } else if (type == "rolled_back") {
    if (!rolling_back_) return;
    on_disk_ = step_folders(folder_.checkpoints());
    callbacks_.record("rolled_back", fields);
    rolled_back_to(get_unsigned(message, "step"));
  } else if (type == "finished") {
    callbacks_.on_finished(step);
  } else if (type == "finish_failed") {
    callbacks_.on_finish_failed(get_text(message, "reason"));
  }
  if (waiting_arena_ &&
      (type == "committed" || type == "failed" || type == "loaded" || type == "load_failed"))
    make_arena(*std::exchange(waiting_arena_, std::nullopt));
}

void SnapshotKeeper::begin_attempt(int number, pid_t leader) {
  attempt_ = static_cast<uint32_t>(number);
  leader_ = leader;
  send({{"type", "attempt"}, {"number", number}, {"leader", leader}});
  discard_unfinished(*control_);
  // A load that is on its way is offered when its memory is there.
  if (std::any_of(generations_.begin(), generations_.end(),
                  [](const auto& g) { return g.second.for_load; }) ||
      (waiting_arena_ && waiting_arena_->for_load))
    return;
  const auto memory = newest_complete(*control_);
  const bool usable = memory && generations_.contains(memory->gen);
  if (usable && (on_disk_.empty() || memory->step >= on_disk_.front().step))
    return offer(Resume{"memory", memory->step, memory->gen, memory->index});
  if (loading_) return offer(loading_);
  if (on_disk_.empty()) return offer(std::nullopt);
  load_next_candidate();
}

// The newest folder whose manifest reads; the writer verifies every byte while it loads it.
void SnapshotKeeper::load_next_candidate() {
  while (!on_disk_.empty()) {
    const StepFolder folder = on_disk_.front();
    const auto manifest = inspect_step(folder);
    const auto layout = manifest ? layout_of(*manifest, 0) : forward(Result<Manifest>(manifest));
    if (layout) return make_arena({0, *layout, true});
    Json fields = {{"step", folder.step}, {"reason", layout.error().message}};
    on_disk_.erase(on_disk_.begin());
    if (layout.error().kind == ErrorKind::damaged) {
      const auto lock =
          FileLock::acquire(folder_.checkpoints_lock(), FileLock::Mode::exclusive, Duration::zero());
      if (lock)
        if (const auto aside = set_aside(folder.path)) fields["aside"] = *aside;
    }
    callbacks_.record("checkpoint_bad", fields);
  }
  no_resume("no checkpoint of this run verifies; the damaged ones are kept as .bad-… in " +
            folder_.checkpoints());
}

void SnapshotKeeper::begin_load(uint32_t gen) {
  if (on_disk_.empty()) return load_next_candidate();
  const StepFolder& folder = on_disk_.front();
  bitctl_slot& slot = control_->slots[gen % BITCTL_BANKS][0];
  bitctl_store32(&slot.gen, gen);
  bitctl_store64(&slot.seq, ++control_->seq);
  bitctl_store64(&slot.step, folder.step);
  bitctl_store32(&slot.attempt, attempt_);
  bitctl_store64(&slot.loaded, 0);
  bitctl_store32(&slot.state, BITCTL_SLOT_LOADING);
  loading_ = Resume{"disk", folder.step, gen, 0};
  send({{"type", "load"}, {"step", folder.step}, {"path", folder.path}, {"gen", gen}, {"slot", 0}});
  offer(loading_);
}

void SnapshotKeeper::offer(std::optional<Resume> resume) {
  offered_ = resume;
  callbacks_.on_resume(resume);
}

void SnapshotKeeper::no_resume(const std::string& reason) {
  offered_.reset();
  callbacks_.on_no_resume(reason);
}

void SnapshotKeeper::trainer_is_dead() {
  leader_ = 0;
  discard_unfinished(*control_);
  waiting_arena_.reset();
  send({{"type", "trainer_dead"}});
}

void SnapshotKeeper::roll_back(uint64_t before, std::function<void(std::optional<uint64_t>)> done) {
  rolling_back_ = before;
  on_rolled_back_ = std::move(done);
  if (writer_lost_) return rolled_back_to(std::nullopt);
  send({{"type", "roll_back"}, {"before", before}});
}

void SnapshotKeeper::rolled_back_to(std::optional<uint64_t> step) {
  if (std::exchange(rolling_back_, std::nullopt)) std::exchange(on_rolled_back_, {})(step);
}

void SnapshotKeeper::lose_writer(const std::string& reason) {
  writer_lost_ = true;
  callbacks_.on_writer_lost(reason);
  rolled_back_to(std::nullopt);  // nobody is left who could
}

void SnapshotKeeper::request_arena(int number, const Json& files) {
  auto layout = arena_layout_from({{"gen", 0}, {"files", files}});
  if (!layout) return callbacks_.on_arena(number, 0, layout.error().message);
  make_arena({number, std::move(*layout), false});
}

// A generation whose bank holds nothing that is in use, and not the newest complete snapshot.
std::optional<uint32_t> SnapshotKeeper::free_generation() {
  const auto newest = newest_complete(*control_);
  for (uint32_t gen = last_gen_ + 1; gen <= last_gen_ + BITCTL_BANKS; ++gen) {
    const uint32_t bank = gen % BITCTL_BANKS;
    if (newest && newest->bank == bank) continue;
    const auto slots = slots_of(*control_);
    if (std::none_of(slots.begin(), slots.end(),
                     [&](const SlotView& s) { return s.bank == bank && is_busy(s.state); }))
      return gen;
  }
  return std::nullopt;
}

void SnapshotKeeper::make_arena(Pending pending) {
  const auto gen = free_generation();
  if (!gen) {
    waiting_arena_ = std::move(pending);
    return;
  }
  const auto fail_with = [&](const std::string& reason) {
    if (pending.for_load) return no_resume("no memory to load the checkpoint: " + reason);
    callbacks_.on_arena(pending.request, 0, reason);
  };
  std::vector<uint32_t> same_bank;
  for (const auto& [old, generation] : generations_)
    if (old % BITCTL_BANKS == *gen % BITCTL_BANKS) same_bank.push_back(old);
  for (const uint32_t old : same_bank) drop_generation(old);
  Generation generation;
  generation.layout = std::move(pending.layout);
  generation.layout.gen = *gen;
  generation.request = pending.request;
  generation.for_load = pending.for_load;
  for (int i = 0; i < BITCTL_SLOTS; ++i) {
    auto memory = create_memory(fmt::format("bitctl-slot-{}", i), generation.layout.slot_bytes());
    if (!memory) return fail_with(memory.error().message);
    generation.slots.push_back(std::move(*memory));
  }
  last_gen_ = *gen;
  generations_[*gen] = std::move(generation);
  send({{"type", "arena"}, {"gen", *gen}, {"files", to_json(generations_[*gen].layout)["files"]}},
       slot_fds(*gen));
}

void SnapshotKeeper::drop_generation(uint32_t gen) {
  generations_.erase(gen);
  for (bitctl_slot& slot : control_->slots[gen % BITCTL_BANKS])
    if (bitctl_load32(&slot.gen) == gen) bitctl_store32(&slot.state, BITCTL_SLOT_FREE);
  send({{"type", "drop_arena"}, {"gen", gen}});
}

// An outgrown generation goes as soon as a newer one holds the newest snapshot.
void SnapshotKeeper::drop_old_generations() {
  const auto newest = newest_complete(*control_);
  if (!newest) return;
  std::vector<uint32_t> old;
  for (const auto& [gen, generation] : generations_)
    if (gen < newest->gen) old.push_back(gen);
  for (const uint32_t gen : old) {
    const auto& slots = control_->slots[gen % BITCTL_BANKS];
    if (std::none_of(std::begin(slots), std::end(slots),
                     [&](const bitctl_slot& s) { return is_busy(bitctl_load32(&s.state)); }))
      drop_generation(gen);
  }
}

Json SnapshotKeeper::arena_message(uint32_t gen) const {
  const auto found = generations_.find(gen);
  return found == generations_.end() ? Json::object() : to_json(found->second.layout);
}

std::vector<int> SnapshotKeeper::slot_fds(uint32_t gen) const {
  std::vector<int> fds;
  if (const auto found = generations_.find(gen); found != generations_.end())
    for (const Fd& fd : found->second.slots) fds.push_back(fd.get());
  return fds;
}

std::optional<uint64_t> SnapshotKeeper::newest_durable_step() const {
  return on_disk_.empty() ? std::nullopt : std::optional(on_disk_.front().step);
}

std::optional<uint64_t> SnapshotKeeper::newest_step() {
  const auto memory = newest_complete(*control_);
  const auto disk = newest_durable_step();
  if (!memory) return disk;
  return disk ? std::max(*disk, memory->step) : memory->step;
}

void SnapshotKeeper::drain() {
  draining_ = true;
  if (writer_timer_ != 0) {
    loop_.cancel(writer_timer_);
    start_writer_again();
  }
  if (!writer_.pidfd) return drained(!newest_ready(*control_));
  send({{"type", "shutdown"}});
}

void SnapshotKeeper::drained(bool all_written) { callbacks_.on_drained(all_written); }

}  // namespace bitctl
