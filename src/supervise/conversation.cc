// What the trainer and other processes of ours say to the supervisor, and what it answers.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/install_layout.h"
#include "base/visible_text.h"
#include "supervise/supervisor.h"

namespace bitctl {
namespace {

constexpr uint64_t kLongestPhase = 1000ull * 3600 * 24 * 365 * 100;  // milliseconds

// The six fields of a "pulse" message, as the file would hold them.
std::string pulse_text(const Json& message) {
  Json fields = message;
  fields.erase("type");
  return dump_line(fields);
}

}  // namespace

void Supervisor::on_hello(const TrainerServer::Client& client) {
  if (client.hello.role == "control")
    return server_->send(
        client.id, {{"type", "welcome"}, {"protocol", kTrainerProtocol}, {"run_dir", held_.folder.path()}});
  hang_watch_.stall().connected(loop_.now());
  now_.connected = true;
  if (state_ == State::starting) spare_->read_link();  // the spare has answered before it says hello
  record("hello", {{"pid", client.hello.pid},
                   {"rank", client.hello.rank},
                   {"world_size", client.hello.world_size},
                   {"python", client.hello.python},
                   {"torch", client.hello.torch}});
  if (client.hello.rank > 0)
    if (const auto status = snapshots_->add_rank(static_cast<uint32_t>(client.hello.rank)); !status)
      return violate("no memory for snapshots: " + status.error().message);
  const bool anew = client.hello.restart > launcher_restart_ || ranks_seen_.contains(client.hello.rank);
  if (anew) ranks_seen_.clear();
  ranks_seen_.insert(client.hello.rank);
  if (anew) {
    // The attempt's own launcher has started its workers anew: they go on from the newest snapshot.
    launcher_restart_ = client.hello.restart;
    begin_from_newest();
    hang_watch_.begin_attempt();
    hang_watch_.stall().connected(loop_.now());
    return snapshots_->begin_attempt(now_.attempt, trainer_.pid());
  }
  if (resume_known_) welcome(client);
}

// Forgets what a worker was given, and what it said.
void Supervisor::begin_from_newest() {
  resume_known_ = first_step_seen_ = finish_asked_ = finish_needs_model_ = false;
  resume_.reset();
  restored_.reset();
  sharded_.reset();
  last_reported_.reset();
}

// Rank 0's image, which a replicated rank needs too, and the rank's own where it has saved one. Appends the
// slots' descriptors, in this order.
Json Supervisor::resume_message(uint32_t rank, std::vector<int>& fds) const {
  const auto image_of = [&](uint32_t owner) {
    const Resume::Image& image = resume_->images[owner];
    for (const int fd : snapshots_->arenas(owner).slot_fds(image.gen)) fds.push_back(fd);
    Json message = {{"slot", image.slot}};
    message.update(snapshots_->arenas(owner).message(image.gen));
    return message;
  };
  Json message = image_of(0);
  message["source"] = resume_->source;
  message["step"] = resume_->step;
  message["world_size"] = resume_->images.size();
  if (rank > 0 && rank < resume_->images.size()) message["own"] = image_of(rank);
  if (rolled_back_to_ == resume_->step && !data_after_.is_null()) message["data"] = data_after_;
  return message;
}

void Supervisor::welcome(const TrainerServer::Client& client) {
  if (!welcomed_.insert(client.id).second) return;
  std::vector<int> fds = {snapshots_->control_fd(), snapshots_->wake_fd()};
  const auto stacks = hang_watch_.stacks().descriptors_for(client.id, static_cast<pid_t>(client.hello.pid));
  Json message = {{"type", "welcome"},
                  {"protocol", kTrainerProtocol},
                  {"run_dir", held_.folder.path()},
                  {"attempt", now_.attempt},
                  {"snapshot_library", install_layout().snapshot_library},
                  {"checkpoint_policy", checkpoint_policy()},
                  {"watch_non_finite", config_.watchdog.nan == NanAction::rollback},
                  {"modules_wanted", client.hello.rank == 0 && spare_->wants_modules()},
                  {"resume", nullptr}};
  const auto rank = static_cast<uint32_t>(client.hello.rank);
  if (resume_) message["resume"] = resume_message(rank, fds);
  if (rank > 0) {
    message["own_page"] = fds.size();
    fds.push_back(snapshots_->control_fd(rank));
  }
  if (!stacks.empty()) {
    message["stacks"] = {{"signal", StackDump::signal()}, {"fd", fds.size()}};
    fds.insert(fds.end(), stacks.begin(), stacks.end());
  }
  server_->send(client.id, message, fds);
}

void Supervisor::on_resume(const std::optional<Resume>& resume) {
  if (restored_) return;  // it has what it needs
  const bool again = resume_known_;
  resume_known_ = true;
  resume_ = resume;
  for (const auto& client : server_->trainers()) {
    if (!again) {
      welcome(client);
    } else if (resume_) {
      std::vector<int> fds;
      Json message = {{"type", "resume"}};
      message.update(resume_message(static_cast<uint32_t>(client.hello.rank), fds));
      server_->send(client.id, message, fds);
    }
  }
}

Json Supervisor::checkpoint_policy() const {
  const CheckpointInterval& every = config_.checkpoints.every;
  if (every.steps > 0) return {{"steps", every.steps}};
  if (every.time > Duration::zero()) return {{"seconds", as_seconds(every.time)}};
  const auto failed = [](const AttemptRecord& a) { return !a.stop_asked && !a.restart_asked; };
  return {{"auto", true},
          {"ran_seconds", as_seconds(loop_.now() - run_started_)},
          {"failures", std::ranges::count_if(attempts_, failed)}};
}

void Supervisor::on_message(const TrainerServer::Client& client, const Json& message) {
  if (client.hello.role == "control") return on_control(client, message);
  const std::string type = get_text(message, "type");
  if (type == "stacks_ready") return hang_watch_.stacks().ready(client.id);
  // Its interpreter is about to take its handlers back.
  if (type == "bye") hang_watch_.stacks().forget(client.id);
  if (type == "arena")
    return snapshots_->request_arena(static_cast<uint32_t>(client.hello.rank),
                                     static_cast<int>(get_unsigned(message, "request").value_or(0)),
                                     message.contains("files") ? message["files"] : Json());
  if (type == "restored") note_sharded(client.hello.rank, get_flag(message, "sharded"));
  if (type == "restore_failed")
    return violate(get_text(message, "reason", "the checkpoint does not fit this script"));
  if (type == "silent") {
    record("package_failed",
           {{"rank", client.hello.rank}, {"reason", get_text(message, "reason", "unknown")}});
    if (client.hello.rank == 0) hang_watch_.stall().disconnected(loop_.now());
    return;
  }
  if (client.hello.rank != 0) return;  // one rank speaks for the run
  if (type == "progress") {
    on_progress(message);
  } else if (type == "non_finite") {
    on_non_finite(message);
  } else if (type == "phase") {
    on_phase(message);
  } else if (type == "pulse") {
    if (const auto status = parse_pulse(pulse_text(message), "bitctl.pulse");
        const auto* good = std::get_if<PulseGood>(&status))
      on_pulse(good->status, get_text(message, "non_finite_loss"), false);
  } else if (type == "checkpoint_interval") {
    if (const auto seconds = get_finite(message, "seconds"); seconds && *seconds > 0)
      record("checkpoint_interval", {{"seconds", *seconds}});
  } else if (type == "restored") {
    restored_ = get_unsigned(message, "step").value_or(0);
    if (*restored_ > 0) hang_watch_.stall().resumes();
    snapshots_->restored();
    if (*restored_ > 0)
      record("resumed", {{"step", *restored_}, {"source", resume_ ? resume_->source : "?"}});
  } else if (type == "error") {
    now_.error = shortened(get_text(message, "exception"), 300);
    now_.error_type = shortened(get_text(message, "exception_type"), 100);
    now_.error_key = shortened(get_text(message, "traceback_hash"), 64);
    record("error", {{"exception", now_.error},
                     {"exception_type", now_.error_type},
                     {"frame", shortened(get_text(message, "frame"), 300)}});
  } else if (type == "finish") {
    finish_asked_ = true;
    // From here on the disk decides how long it takes.
    finish_needs_model_ = get_flag(message, "model");
    hang_watch_.stall().ends(finish_needs_model_ ? std::nullopt : std::optional(StallWatch::kFirstTime),
                             loop_.now());
    model_published_ = false;
    flush_progress();
    record("finishing", {{"step", get_unsigned(message, "step").value_or(0)}});
  } else if (type == "bye") {
    hang_watch_.stall().ends(StallWatch::kFirstTime, loop_.now());
  } else if (type == "stopping") {
    now_.last_step = std::max(now_.last_step, get_unsigned(message, "step").value_or(0));
    now_.stop_asked = true;
  }
}

// What a spare must import to stand in for this trainer.
void Supervisor::on_modules(const TrainerServer::Client& client, const Json& message, std::vector<Fd> fds) {
  if (client.hello.role != "trainer" || client.hello.rank != 0 || get_text(message, "type") != "modules")
    return;
  const bool own = client.hello.pid == trainer_.pid() &&
                   has_command_line(trainer_.pid(), trainer_argv(config_, held_.folder.path()));
  spare_->learn(message, std::move(fds.front()), own);
  make_spare();
}

void Supervisor::make_spare() {
  if (spare_->is_due() && state_ == State::running) spare_->make(spawn_plan(now_.attempt));
}

void Supervisor::on_control(const TrainerServer::Client& client, const Json& message) {
  const std::string type = get_text(message, "type");
  if (type == "stop") {
    ask_stop("bitctl stop", get_flag(message, "now") ? Urgency::now : Urgency::at_the_boundary);
    server_->send(client.id, {{"type", "ok"}});
  } else if (type == "restart") {
    const auto status = ask_restart(get_flag(message, "now") ? Urgency::now : Urgency::at_the_boundary);
    Json answer = {{"type", status ? "ok" : "refused"}};
    if (!status) answer["reason"] = status.error().message;
    server_->send(client.id, answer);
  } else if (type == "save") {
    const bool possible = state_ == State::running && server_->leader() != 0;
    if (possible) ask_for(BITCTL_ASKED_SAVE);
    Json answer = {{"type", possible ? "ok" : "refused"}};
    if (!possible) answer["reason"] = "no trainer is connected that could take a snapshot";
    server_->send(client.id, answer);
  }
}

// Each rank says whether it saves a part of the model of its own; they must be of one mind.
void Supervisor::note_sharded(int rank, bool sharded) {
  if (!sharded_) sharded_ = {rank, sharded};
  if (sharded_->second == sharded) return;
  const int with = sharded ? rank : sharded_->first;
  const int without = sharded ? sharded_->first : rank;
  violate(fmt::format("the ranks disagree: rank {} calls run.restore(sharded=True), rank {} does not", with,
                      without));
}

// A process alone can be told the step. Several agree on one that none has passed; only rank 0 can say which.
void Supervisor::ask_for(bitctl_asked what) {
  bitctl_control& page = snapshots_->control();
  if (server_->highest_world_size() > 1) {
    __atomic_fetch_or(&page.asked, static_cast<uint32_t>(what), __ATOMIC_ACQ_REL);
    return;
  }
  const uint64_t step = std::max<uint64_t>(1, bitctl_load64(&page.step));
  bitctl_store64(what == BITCTL_ASKED_STOP ? &page.stop_at_step : &page.save_at_step, step);
}

// A script that begins again where it should go on is ended before it costs a night. Reports may come every N
// steps, so as far as the widest gap seen in this run a first report may lie ahead.
std::optional<std::string> Supervisor::first_step_problem(uint64_t step) const {
  if (!resume_) return std::nullopt;
  const uint64_t base = resume_->step;
  if (!restored_)
    return fmt::format(
        "the script starts over: it reported step {} without run.restore(), and step {} was there to resume "
        "from",
        step, base);
  if (step <= base)
    return fmt::format(
        "the script starts over: the first step it reported is {}, where step {} had been restored", step,
        base);
  const uint64_t gap = std::max<uint64_t>(1, widest_report_gap_);
  if (widest_report_gap_ > 0 && step > base + gap)
    return fmt::format("the script skips: the first step it reported is {}, where step {} had been restored",
                       step, base);
  return std::nullopt;
}

void Supervisor::on_progress(const Json& message) {
  const auto progress = progress_from(message);
  if (!progress) {
    spdlog::warn("{}", progress.error().message);
    return;
  }
  // A report of the very step that was restored says nothing new.
  if (!first_step_seen_ && restored_ && *restored_ > 0 && progress->step == *restored_) return;
  if (!std::exchange(first_step_seen_, true)) {
    if (const auto problem = first_step_problem(progress->step)) return violate(*problem);
    spare_->attempt_is_good();
  }
  make_spare();
  if (last_reported_ && progress->step > *last_reported_)
    widest_report_gap_ = std::max(widest_report_gap_, progress->step - *last_reported_);
  last_reported_ = progress->step;
  now_.reports_progress = true;
  now_.last_step = progress->step;
  hang_watch_.stall().step(progress->step, loop_.now());
  if (progress->total_steps && progress->step >= *progress->total_steps)
    hang_watch_.stall().ends(StallWatch::kFirstTime, loop_.now());
  take_progress(*progress);
}

// The first of an attempt counts; what comes until its end is of the same making.
void Supervisor::on_non_finite(const Json& message) {
  const bool counts = state_ == State::running || state_ == State::killing;
  if (config_.watchdog.nan != NanAction::rollback || !counts || now_.non_finite_step) return;
  now_.non_finite_step = get_unsigned(message, "step").value_or(0);
  data_after_ = message.contains("data") ? message["data"] : Json();
  feed(Event::diverged);
}

// The control page holds it as well, where no message gets through to us.
void Supervisor::enter_phase() {
  const bitctl_control& page = snapshots_->control();
  const uint32_t count = bitctl_load32(&page.phase_count);
  const uint32_t phase = bitctl_load32(&page.phase);
  if (count == phases_seen_ || phase > static_cast<uint32_t>(Phase::busy)) return;
  phases_seen_ = count;
  const uint64_t milliseconds = std::min<uint64_t>(bitctl_load64(&page.phase_ms), kLongestPhase);
  hang_watch_.stall().enter(
      static_cast<Phase>(phase),
      milliseconds > 0 ? std::optional<Duration>(std::chrono::milliseconds(milliseconds)) : std::nullopt,
      loop_.now());
}

void Supervisor::on_phase(const Json& message) {
  const auto phase = phase_from(get_text(message, "phase"));
  if (!phase) return;
  enter_phase();
  // A script that evaluates every step does not fill the disk with it.
  if (last_phase_row_ && loop_.now() - *last_phase_row_ < ProgressRows::kPace) return;
  last_phase_row_ = loop_.now();
  const std::string text = shortened(get_text(message, "text"), 200);
  Json fields = {{"phase", name_of(*phase)}};
  if (!text.empty()) fields["text"] = text;
  record("phase", fields);
}

// What the script wrote through bitctl.pulse, or into a PULSE file of its own (`stamped`: that file's time
// counts).
void Supervisor::on_pulse(const PulseStatus& status, const std::string& non_finite, bool stamped) {
  if (status.status == TrainingState::done) finish_asked_ = true;
  if (status.status == TrainingState::error) now_.error = shortened(status.message, 300);
  if (status.status == TrainingState::idle || status.status == TrainingState::error) return;
  Progress progress;
  progress.step = bitctl_load64(&snapshots_->control().step);
  progress.epoch = status.epoch;
  progress.total_epochs = status.total_epochs;
  progress.loss = status.loss;
  progress.non_finite = non_finite;
  progress.message = shortened(status.message, 1000);
  if (stamped) progress.stamp = status.timestamp;
  if (hang_watch_.stall().phase() == Phase::init) hang_watch_.stall().connected(loop_.now());
  hang_watch_.stall().sign(loop_.now());
  now_.reports_progress = true;
  take_progress(progress);
}

void Supervisor::take_progress(const Progress& progress) {
  if (progress_.add(progress, loop_.now()))
    flush_progress();
  else
    schedule_progress();
  if (!progress.non_finite.empty() && config_.watchdog.nan == NanAction::stop) {
    flush_progress();
    violate(fmt::format("loss is {} at step {}", progress.non_finite, progress.step));
  }
}

void Supervisor::flush_progress() {
  loop_.cancel(progress_timer_);
  if (progress_.pending()) record("progress", progress_.take(loop_.now()));
}

void Supervisor::schedule_progress() {
  if (const auto due = progress_.due_at()) {
    loop_.cancel(progress_timer_);
    progress_timer_ = loop_.call_at(*due, [this] { flush_progress(); });
  }
}

void Supervisor::on_arena(uint32_t rank, int request, uint32_t gen, const std::string& failure) {
  const int trainer = server_->trainer_of(static_cast<int>(rank));
  if (trainer == 0) return;
  if (gen == 0)
    return server_->send(trainer, {{"type", "arena_failed"}, {"request", request}, {"reason", failure}});
  Json message = {{"type", "arena_ready"}, {"request", request}};
  message.update(snapshots_->arenas(rank).message(gen));
  server_->send(trainer, message, snapshots_->arenas(rank).slot_fds(gen));
}

}  // namespace bitctl
