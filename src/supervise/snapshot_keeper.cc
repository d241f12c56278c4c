#include "supervise/snapshot_keeper.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/install_layout.h"
#include "base/lock.h"
#include "base/seqpacket.h"
#include "base/text.h"
#include "checkpoint/folders.h"
#include "checkpoint/load.h"

namespace bitctl {
namespace {

constexpr int kMaxWriterDeaths = 5;  // without a commit between them
constexpr int kMaxEarlyDeaths = 2;   // then it is started without the engine, which may be what kills it
constexpr Duration kWriterBackoff = std::chrono::milliseconds(100);

// The arenas, one a rank, that the step's files fill exactly.
Result<std::vector<ArenaLayout>> layouts_of(const StepFolder& folder) {
  const auto manifest = inspect_step(folder);
  if (!manifest) return tl::unexpected(manifest.error());
  std::vector<ArenaLayout> layouts;
  for (uint32_t rank = 0; rank < manifest->world_size; ++rank) {
    auto layout = layout_of(part_of(*manifest, rank), 0);
    if (!layout) return forward(std::move(layout));
    layouts.push_back(std::move(*layout));
  }
  return layouts;
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
  if (auto status = add_rank(0); !status) return status;
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
  plan.inherited = {pair->second.get(), control_fd(), wake_.get(), lock_fd_};
  plan.dies_with_us = false;  // it has work to do after our death
  auto spawned = spawn(plan);
  if (!spawned) return forward(std::move(spawned));
  writer_ = std::move(*spawned);
  link_ = std::move(pair->first);
  writer_ready_ = false;
  loop_.watch(writer_.pidfd.get(), EPOLLIN, [this](uint32_t) { on_writer_exit(); });
  loop_.watch(link_.get(), EPOLLIN, [this](uint32_t) { on_writer_message(); });
  callbacks_.on_writer(writer_.pid);
  for (auto& [number, of] : ranks_) {
    const uint32_t rank = number;
    if (rank > 0) send({{"type", "rank"}, {"rank", rank}}, {control_fd(rank)});
    for (auto& [gen, generation] : of.arenas.generations()) {
      generation.ready = false;
      generation.for_load = load_ && load_->gens.contains(rank) && load_->gens[rank] == gen;
      announce(rank, gen);
    }
  }
  if (load_) load_->allocated = 0;
  if (leader_ > 0) tell_attempt();
  if (rolling_back_) send({{"type", "roll_back"}, {"before", *rolling_back_}});
  return {};
}

void SnapshotKeeper::tell_attempt() {
  Json message = {{"type", "attempt"}, {"number", attempt_}, {"leader", leader_}};
  if (resumed_from_) message["resumed_from"] = *resumed_from_;
  send(message);
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
    const auto rank = static_cast<uint32_t>(get_unsigned(message, "rank").value_or(0));
    const auto gen = static_cast<uint32_t>(get_unsigned(message, "gen").value_or(0));
    RankArenas::Generation* generation = ranks_.contains(rank) ? ranks_.at(rank).arenas.find(gen) : nullptr;
    if (generation == nullptr) return;
    const bool ready = generation->ready = type == "arena_ready";
    const std::string failure = ready ? "" : get_text(message, "reason", "no memory");
    if (!ready) callbacks_.record("arena_failed", fields);
    if (std::exchange(generation->for_load, false)) return on_arena_for_load(rank, gen, failure);
    if (const int request = std::exchange(generation->request, 0); request > 0)
      callbacks_.on_arena(rank, request, ready ? gen : 0, failure);
    if (!ready) drop_generation(rank, gen);
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
    resumed_from_ = step;
    loading_.reset();
    load_.reset();
  } else if (type == "load_failed") {
    fields.erase("damaged");
    callbacks_.record("checkpoint_bad", fields);
    loading_.reset();
    load_.reset();
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
  if (type == "committed" || type == "failed") save_watch_.saved();
  if (type == "committed" || type == "failed" || type == "loaded" || type == "load_failed")
    for (auto& [number, rank] : ranks_)
      if (rank.arenas.waiting) make_arena(number, *std::exchange(rank.arenas.waiting, std::nullopt));
}

void SnapshotKeeper::begin_attempt(int number, pid_t leader) {
  attempt_ = static_cast<uint32_t>(number);
  leader_ = leader;
  resumed_from_.reset();
  tell_attempt();
  pages_.discard_unfinished();
  // Its ranks will say so themselves.
  bitctl_store32(&control().world_size, 0);
  bitctl_store32(&control().leaving, 0);
  for (const auto& [rank, of] : ranks_)
    if (rank > 0) bitctl_store64(&pages_.of(rank).step, 0);
  if (ranks_.size() > 1) bitctl_store64(&control().save_at_step, 0);
  if (load_ && !loading_) return;  // offered when its memory is there
  const auto memory = newest_complete_set(pages_.look());
  const bool usable = memory && std::ranges::all_of(memory->slots, [&](const SlotView& slot) {
                        return arenas(slot.rank).contains(slot.gen);
                      });
  if (usable && (on_disk_.empty() || memory->step() >= on_disk_.front().step)) {
    Resume resume{"memory", memory->step(), {}};
    for (const SlotView& slot : memory->slots) resume.images.push_back({slot.gen, slot.index});
    return offer(std::move(resume));
  }
  if (loading_) return offer(loading_);
  if (on_disk_.empty()) return offer(std::nullopt);
  load_next_candidate();
}

// The newest folder whose manifest reads; the writer verifies every byte while it loads it.
void SnapshotKeeper::load_next_candidate() {
  while (!on_disk_.empty()) {
    const StepFolder folder = on_disk_.front();
    const auto layouts = layouts_of(folder);
    if (layouts) {
      load_ = Load{static_cast<uint32_t>(layouts->size())};
      for (uint32_t rank = 0; rank < layouts->size() && load_; ++rank)
        make_arena(rank, {0, (*layouts)[rank], true});
      return;
    }
    Json fields = {{"step", folder.step}, {"reason", layouts.error().message}};
    on_disk_.erase(on_disk_.begin());
    if (layouts.error().kind == ErrorKind::damaged) {
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

void SnapshotKeeper::on_arena_for_load(uint32_t rank, uint32_t gen, const std::string& failure) {
  if (!failure.empty()) {
    drop_generation(rank, gen);
    if (std::exchange(load_, std::nullopt)) no_resume("no memory to load the checkpoint: " + failure);
  } else if (load_ && load_->gens[rank] == gen && ++load_->allocated == load_->world_size) {
    begin_load();
  }
}

void SnapshotKeeper::begin_load() {
  if (on_disk_.empty()) return load_next_candidate();
  const StepFolder& folder = on_disk_.front();
  loading_ = Resume{"disk", folder.step, {}};
  Json gens = Json::array();
  for (const auto& [rank, gen] : load_->gens) {
    bitctl_control& page = pages_.of(rank);
    bitctl_slot& slot = page.slots[gen % BITCTL_BANKS][0];
    bitctl_store32(&slot.gen, gen);
    bitctl_store64(&slot.seq, ++page.seq);
    bitctl_store64(&slot.step, folder.step);
    bitctl_store32(&slot.attempt, attempt_);
    bitctl_store32(&slot.final, 0);
    bitctl_store64(&slot.world_size, load_->world_size);
    bitctl_store64(&slot.loaded, 0);
    bitctl_store32(&slot.state, BITCTL_SLOT_LOADING);
    loading_->images.push_back({gen, 0});
    gens.push_back(gen);
  }
  send({{"type", "load"}, {"step", folder.step}, {"path", folder.path}, {"gens", std::move(gens)}});
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
  pages_.discard_unfinished();
  for (auto& [number, rank] : ranks_)
    if (const auto given_up = std::exchange(rank.arenas.waiting, std::nullopt);
        given_up && given_up->for_load)
      load_.reset();
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

Status SnapshotKeeper::add_rank(uint32_t rank) {
  if (ranks_.contains(rank)) return {};
  auto control = ControlPage::create();
  if (!control) return forward(std::move(control));
  pages_.add(rank, std::move(control->first));
  ranks_.emplace(rank, Rank{std::move(control->second), RankArenas(pages_.of(rank))});
  if (rank > 0) send({{"type", "rank"}, {"rank", rank}}, {control_fd(rank)});
  return {};
}

void SnapshotKeeper::request_arena(uint32_t rank, int number, const Json& files) {
  auto layout = arena_layout_from({{"gen", 0}, {"files", files}});
  if (layout && std::ranges::any_of(layout->files,
                                    [&](const ArenaFile& file) { return rank_of_file(file.name) != rank; }))
    layout = fail(ErrorKind::invalid, fmt::format("arena: a file of another rank than {}", rank));
  if (!layout) return callbacks_.on_arena(rank, number, 0, layout.error().message);
  make_arena(rank, {number, std::move(*layout), false});
}

void SnapshotKeeper::make_arena(uint32_t rank, RankArenas::Pending pending) {
  const bool for_load = pending.for_load;
  if (for_load && !load_) return;  // given up meanwhile
  const auto fail_with = [&, request = pending.request](const std::string& reason) {
    if (!for_load) return callbacks_.on_arena(rank, request, 0, reason);
    load_.reset();
    no_resume("no memory to load the checkpoint: " + reason);
  };
  if (const auto status = add_rank(rank); !status) return fail_with(status.error().message);
  RankArenas& arenas = ranks_.at(rank).arenas;
  const auto set = newest_complete_set(pages_.look());
  const bool has_part = set && rank < set->slots.size();
  const auto gen = arenas.free_generation(has_part ? std::optional(set->slots[rank]) : std::nullopt);
  if (!gen) {
    arenas.waiting = std::move(pending);
    return;
  }
  for (const uint32_t old : arenas.in_the_way_of(*gen)) drop_generation(rank, old);
  if (const auto status = arenas.make(*gen, std::move(pending)); !status)
    return fail_with(status.error().message);
  if (for_load) load_->gens[rank] = *gen;
  announce(rank, *gen);
}

// To the writer, which allocates it.
void SnapshotKeeper::announce(uint32_t rank, uint32_t gen) {
  Json message = {{"type", "arena"}, {"rank", rank}};
  message.update(arenas(rank).message(gen));
  send(message, arenas(rank).slot_fds(gen));
}

void SnapshotKeeper::drop_generation(uint32_t rank, uint32_t gen) {
  ranks_.at(rank).arenas.drop(gen);
  send({{"type", "drop_arena"}, {"rank", rank}, {"gen", gen}});
}

// An outgrown generation goes as soon as a newer one holds the newest checkpoint.
void SnapshotKeeper::drop_old_generations() {
  const auto newest = newest_complete_set(pages_.look());
  if (!newest) return;
  for (const SlotView& slot : newest->slots)
    for (const uint32_t old : arenas(slot.rank).outgrown_by(slot.gen)) drop_generation(slot.rank, old);
}

std::optional<uint64_t> SnapshotKeeper::newest_durable_step() const {
  return on_disk_.empty() ? std::nullopt : std::optional(on_disk_.front().step);
}

std::optional<uint64_t> SnapshotKeeper::newest_step() const {
  const auto memory = newest_complete_set(pages_.look());
  const auto disk = newest_durable_step();
  if (!memory) return disk;
  return disk ? std::max(*disk, memory->step()) : memory->step();
}

void SnapshotKeeper::look() {
  const auto waiting = newest_waiting_set(pages_.look());
  const auto silent = save_watch_.look(waiting.has_value(), longest_save_);
  if (!silent) return;
  callbacks_.record("persist_failed",
                    {{"step", waiting->step()},
                     {"reason", fmt::format("nothing was saved for {}; the disk of {} does not answer",
                                            format_duration(*silent), folder_.checkpoints())}});
}

void SnapshotKeeper::drain() {
  draining_ = true;
  if (writer_timer_ != 0) {
    loop_.cancel(writer_timer_);
    start_writer_again();
  }
  if (!writer_.pidfd) return drained(!newest_waiting_set(pages_.look()));
  send({{"type", "shutdown"}});
}

void SnapshotKeeper::drained(bool all_written) { callbacks_.on_drained(all_written); }

}  // namespace bitctl
