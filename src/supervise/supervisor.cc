#include "supervise/supervisor.h"

#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/replace_file.h"
#include "base/text.h"
#include "base/unused_memory.h"
#include "base/visible_text.h"
#include "checkpoint/catalog.h"
#include "launch/neighbours.h"
#include "launch/processes.h"
#include "supervise/retention_policy.h"
#include "watch/health.h"

namespace bitctl {
namespace {

using std::chrono::seconds;

constexpr seconds kRestampEvery(10);
constexpr Duration kLeastGrace = seconds(30);

WriterOptions writer_options(const RunConfig& config, const RunFolder& folder, const Isolation& isolation) {
  WriterOptions options;
  options.run_folder = folder.path();
  options.engine = install_layout().engine;
  options.isolation = dump_line(isolation.description());
  options.supervisor = ::getpid();
  options.retention = retention_policy(config);
  return options;
}

RestartRules restart_rules(const RunConfig& config) {
  RestartRules rules;
  rules.on_failure = config.restart.policy == RestartPolicy::on_failure;
  rules.max = config.restart.max;
  rules.backoff = config.restart.backoff;
  rules.backoff_max = config.restart.backoff_max;
  rules.never_on = config.restart.never_on;
  return rules;
}

double jitter() {
  static std::mt19937 generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0, 1)(generator);
}

std::string random_token() { return random_hex8() + random_hex8() + random_hex8() + random_hex8(); }

}  // namespace

Supervisor::Supervisor(EventLoop& loop, HeldRun run, RunConfig config, Fd signals, SupervisorView view)
    : loop_(loop),
      held_(std::move(run)),
      config_(std::move(config)),
      signals_(std::move(signals)),
      view_(std::move(view)),
      trainer_(loop, {.on_exit = [this](const ExitStatus& status) { on_leader_exit(status); },
                      .on_gone = [this] { on_tree_gone(); },
                      .on_unkillable = [this](const auto& left) { on_unkillable(left); }}),
      hang_watch_(
          loop, {!config_.watchdog.stall_off, config_.watchdog.stall},
          {.record = [this](std::string_view kind, Json fields) { record(kind, std::move(fields)); },
           .tree = [this] { return trainer_.tree() ? trainer_.tree()->pids() : std::vector<pid_t>(); },
           .is_frozen = [this] { return trainer_.tree() && trainer_.tree()->is_frozen(); },
           .catch_up = [this] { catch_up(); },
           .on_hang = [this] { on_hang(); }}) {}

Supervisor::~Supervisor() {
  loop_.unwatch(signals_.get());
  for (const auto timer : {backoff_timer_, grace_timer_, progress_timer_, restamp_timer_, trim_timer_})
    loop_.cancel(timer);
}

Result<int> Supervisor::run() {
  const RunFolder& folder = held_.folder;
  auto isolation = Isolation::choose(folder.path(), IsolationWish::of_environment());
  if (!isolation) return forward(std::move(isolation));
  isolation_ = std::move(*isolation);
  auto recorder = Recorder::open(folder, system_clock());
  if (!recorder) return forward(std::move(recorder));
  recorder_ = std::move(*recorder);

  server_ = std::make_unique<TrainerServer>(
      loop_, TrainerServer::Callbacks{
                 [this](const auto& client) { on_hello(client); },
                 [this](const auto& client, const Json& message) { on_message(client, message); },
                 [this](const auto& client, const Json& message, std::vector<Fd> fds) {
                   on_modules(client, message, std::move(fds));
                 },
                 [this](const auto& client) { on_gone(client); }});
  if (auto status = server_->listen(folder.id()); !status) return forward(std::move(status));

  snapshots_ = std::make_unique<SnapshotKeeper>(
      loop_, folder, writer_options(config_, folder, *isolation_), held_.run_lock.fd(),
      SnapshotKeeper::Callbacks{
          .record = [this](std::string_view kind, Json fields) { record(kind, std::move(fields)); },
          .on_arena = [this](uint32_t rank, int request, uint32_t gen,
                             const std::string& why) { on_arena(rank, request, gen, why); },
          .on_resume = [this](const std::optional<Resume>& resume) { on_resume(resume); },
          .on_no_resume = [this](const std::string& reason) { violate(reason); },
          .on_finished =
              [this](uint64_t step) {
                model_published_ = true;
                hang_watch_.stall().ends(StallWatch::kFirstTime, loop_.now());
                record("model", {{"step", step}, {"path", held_.folder.model()}});
                server_->send(server_->leader(), {{"type", "finished"}, {"step", step}});
              },
          .on_finish_failed =
              [this](const std::string& reason) {
                hang_watch_.stall().ends(StallWatch::kFirstTime, loop_.now());
                record("model_failed", {{"reason", reason}});
                server_->send(server_->leader(), {{"type", "finish_failed"}, {"reason", reason}});
              },
          .on_writer = [this](pid_t pid) { on_writer(pid); },
          .on_writer_lost = [this](const std::string& reason) { on_writer_lost(reason); },
          .on_drained =
              [this](bool all_written) {
                snapshot_lost_ = !all_written;
                feed(Event::drained);
              },
      });

  loop_.watch(signals_.get(), EPOLLIN, [this](uint32_t) { on_signal(); });
  run_started_ = loop_.now();
  Json supervising = own_process_id();
  supervising["socket"] = server_->path();
  supervising["isolation"] = isolation_->level();
  record("supervising", supervising);
  spare_ = std::make_unique<Spare>(loop_, *isolation_, [this](Json row) { record("spare", std::move(row)); });
  if (!config_.restart.warm) spare_->rule_out("restart.warm is off");
  if (config_.restart.policy == RestartPolicy::never) spare_->rule_out("restart.policy is never");
  if (auto status = snapshots_->start(); !status) {
    record("failed", {{"reason", status.error().message}});
    recorder_->flush();
    return forward(std::move(status));
  }
  if (config_.progress.source == ProgressSource::pulse)
    pulse_source_ = std::make_unique<PulseSource>(
        loop_, config_.progress.file, [this](const PulseStatus& status) { on_pulse(status, "", true); },
        [this](const std::string& trouble) {
          record("pulse_damaged", {{"reason", trouble}});
        });
  if (config_.watchdog.stall)
    output_watch_ = std::make_unique<OutputWatch>(loop_, [this] {
      if (!hang_watch_.stall().is_connected()) hang_watch_.stall().sign(loop_.now());
    });
  if (config_.limits.time) loop_.call_after(*config_.limits.time, [this] { ask_stop("limits.time"); });
  restamp_timer_ = loop_.call_after(seconds(1), [this] { restamp(); });
  feed(Event::backoff_over);
  while (state_ != State::ended) loop_.run_once();
  recorder_->flush();
  return exit_code_;
}

void Supervisor::record(std::string_view kind, Json fields) {
  const Json row = fields;
  const History& history = recorder_->record(kind, std::move(fields));
  Json shown = {{"kind", kind}};
  shown.update(row);
  view_.on_row(history, shown);
}

void Supervisor::feed(Event event) {
  const auto found = transition(state_, event);
  spdlog::debug("{} + {} -> {}", name_of(state_), name_of(event), found ? name_of(found->next) : "ignored");
  if (!found) return;
  state_ = found->next;
  act(found->effect);
}

void Supervisor::act(Effect effect) {
  switch (effect) {
    case Effect::none:
      break;
    case Effect::start_attempt:
      return start_attempt();
    case Effect::request_stop:
      return request_stop();
    case Effect::request_restart:
      return ask_to_leave();
    case Effect::kill_tree:
      return kill_tree();
    case Effect::note_stop:
      break;
    case Effect::decide:
      return decide_next();
    case Effect::begin_backoff:
      return begin_backoff();
    case Effect::stop_waiting:
      decision_ = {Decision::Kind::stopped, {}, 0, "", kStopped};
      return drain();
    case Effect::drain:
      return drain();
    case Effect::finish:
      return finish();
  }
}

SpawnPlan Supervisor::spawn_plan(int attempt) const {
  const RunFolder& folder = held_.folder;
  SpawnPlan plan;
  plan.argv = trainer_argv(config_, folder.path());
  plan.cwd = config_.workdir;
  plan.output = folder.log_of_attempt(attempt);
  plan.env = current_environment();
  for (const auto& [name, value] : trainer_environment(config_)) plan.env[name] = value;
  const std::string package = install_layout().python;
  std::string& python_path = plan.env["PYTHONPATH"];
  python_path = package + (python_path.empty() ? "" : ":" + python_path);
  if (config_.run.hook) python_path = package + "/bitctl/hook_start:" + python_path;
  plan.env["PYTHONUNBUFFERED"] = "1";
  plan.env.erase("BITCTL_SCOPE");
  plan.env["BITCTL_RUN_DIR"] = folder.path();
  plan.env["BITCTL_ATTEMPT"] = std::to_string(attempt);
  if (config_.progress.source != ProgressSource::none) {
    plan.env["BITCTL_PULSE"] = folder.pulse();
    plan.env["BITCTL_SOCKET"] = server_->path();
    plan.env["BITCTL_TOKEN"] = token_;
  }
  return plan;
}

void Supervisor::start_attempt() {
  loop_.cancel(backoff_timer_);
  const int attempt = recorder_->history().attempt + 1;
  recorder_->set_attempt(attempt);
  now_ = AttemptRecord{.attempt = attempt};
  now_.snapshot_before = snapshots_->newest_step();
  ranks_seen_.clear();
  launcher_restart_ = 0;
  phases_seen_ = bitctl_load32(&snapshots_->control().phase_count);
  welcomed_.clear();
  begin_from_newest();
  progress_.reset();
  token_ = random_token();
  server_->expect(attempt, token_);
  bitctl_store64(&snapshots_->control().stop_at_step, 0);
  bitctl_store32(&snapshots_->control().asked, 0);

  attempt_started_ = loop_.now();
  if (!spare_->is_ready()) return start_cold();
  const SpawnPlan plan = spawn_plan(attempt);
  Json env = Json::object();
  for (const char* name : {"BITCTL_ATTEMPT", "BITCTL_TOKEN"}) env[name] = plan.env.at(name);
  spare_->go(env, plan.output, [this](std::optional<Spare::Trainer> trainer) {
    if (!trainer) return start_cold();
    trainer_.adopt(std::move(trainer->leader), std::move(trainer->tree));
    begun();
  });
}

void Supervisor::start_cold() {
  const int attempt = now_.attempt;
  if (const auto started =
          trainer_.start(spawn_plan(attempt), *isolation_, fmt::format("attempt-{}", attempt));
      !started) {
    record("spawn_failed", {{"reason", started.error().message}});
    now_.code = started.error().kind == ErrorKind::not_found ? kNotFound
                : started.error().kind == ErrorKind::invalid ? kNotExecutable
                                                             : kOwnFailure;
    now_.error = started.error().message;
    return feed(Event::spawn_failed);
  }
  begun();
}

void Supervisor::begun() {
  feed(Event::started);
  loop_.cancel(trim_timer_);
  trim_timer_ = loop_.call_after(seconds(1), release_unused_memory);
  hang_watch_.begin_attempt();
  if (output_watch_) output_watch_->start(held_.folder.log_of_attempt(now_.attempt));
  record("spawned", {{"pid", trainer_.pid()}});
  snapshots_->begin_attempt(now_.attempt, trainer_.pid());
  if (!writer_lost_.empty()) return violate(writer_lost_);
  if (pulse_source_) pulse_source_->start(unix_seconds(system_clock().wall()));
  if (stop_asked_) feed(Event::stop_asked);
}

void Supervisor::request_stop() {
  stop_asked_ = now_.stop_asked = true;
  ask_to_leave();
}

void Supervisor::ask_to_leave() {
  hang_watch_.end_attempt();  // from here on the grace counts
  const Duration grace =
      std::max<Duration>(config_.stop.grace.value_or(kLeastGrace), 3 * snapshots_->longest_save());
  grace_timer_ = loop_.call_after(grace, [this] { feed(Event::grace_over); });
  if (server_->leader() != 0) {
    ask_for(BITCTL_ASKED_STOP);
  } else {
    // Only where nobody is connected: a launcher would orphan its worker.
    trainer_.signal(config_.stop.signal);
  }
}

// The process may live on, but nothing will be heard of it any more.
void Supervisor::on_gone(const TrainerServer::Client& client) {
  hang_watch_.stacks().forget(client.id);
  if (client.hello.role == "trainer" && client.hello.rank == 0 && trainer_runs())
    hang_watch_.stall().disconnected(loop_.now());
}

// What a trainer says while we do not listen is lost, but the control page counts its steps.
void Supervisor::catch_up() {
  server_->read_everything();
  if (!trainer_runs()) return;
  enter_phase();
  const bitctl_control& page = snapshots_->control();
  hang_watch_.stall().made(bitctl_load64(&page.step),
                           Mono(std::chrono::nanoseconds(bitctl_load64(&page.step_ns))));
  // It waits for bytes that the writer still reads.
  if (snapshots_->is_loading()) hang_watch_.stall().sign(loop_.now());
}

void Supervisor::on_hang() {
  now_.hang = true;
  feed(Event::hung);
}

void Supervisor::kill_tree() {
  hang_watch_.end_attempt();
  loop_.cancel(grace_timer_);
  trainer_.kill();
}

void Supervisor::on_tree_gone() {
  server_->read_everything();  // its last words
  if (now_.non_finite_step) {
    snapshots_->trainer_is_dead();
    return snapshots_->roll_back(*now_.non_finite_step, [this](std::optional<uint64_t> step) {
      rolled_back_to_ = step;
      feed(Event::tree_gone);
    });
  }
  // The last words of a PULSE file of its own may not have been read yet.
  if (pulse_source_)
    return pulse_source_->look([this] {
      flush_progress();
      feed(Event::tree_gone);
    });
  feed(Event::tree_gone);
}

void Supervisor::on_unkillable(const std::vector<pid_t>& left) {
  const UnkillableTree stuck = unkillable_tree(left);
  record("unkillable", stuck.fields);
  now_.violation = stuck.reason;
  feed(Event::unkillable);
}

void Supervisor::on_leader_exit(const ExitStatus& status) {
  flush_progress();
  now_.signalled = status.signalled;
  now_.code = status.code;
  Json fields = {{"seconds", as_seconds(loop_.now() - attempt_started_)}};
  if (status.signalled)
    fields["signal"] = signal_name(status.code);
  else
    fields["code"] = status.code;
  MemoryUse& memory = now_.memory = trainer_.tree()->memory();
  memory.peak = std::max(memory.peak, status.peak_rss);
  if (memory.peak > 0) fields["memory_peak"] = memory.peak;
  if (memory.limit > 0) fields["memory_limit"] = memory.limit;
  if (memory.oom_kills > 0) fields["oom_kills"] = memory.oom_kills;
  record("exited", fields);
  feed(Event::leader_exited);
}

void Supervisor::decide_next() {
  flush_progress();
  snapshots_->trainer_is_dead();
  // The control page knows steps whose report was still on its way.
  now_.last_step =
      std::max(now_.last_step, now_.reports_progress ? bitctl_load64(&snapshots_->control().step) : 0);
  now_.snapshot = snapshots_->newest_step();
  const History& history = recorder_->history();
  const bool total_reached = history.total_steps > 0 && now_.last_step >= history.total_steps;
  now_.reached_end = finish_asked_ ? !finish_needs_model_ || model_published_ : total_reached;
  // A stop that was asked for and met by our own SIGKILL after the grace is still a stop.
  attempts_.push_back(now_);
  decision_ = decide(restart_rules(config_), attempts_, jitter());
  if (decision_.kind == Decision::Kind::restart && stop_asked_)
    decision_ = {Decision::Kind::stopped, {}, 0, "", kStopped};
  feed(decision_.kind == Decision::Kind::restart ? Event::restart_due : Event::run_over);
}

void Supervisor::begin_backoff() {
  record("waiting", {{"reason", decision_.reason},
                     {"delay", as_seconds(decision_.delay)},
                     {"next", decision_.without_progress + 1},
                     {"budget", config_.restart.max}});
  backoff_timer_ = loop_.call_after(decision_.delay, [this] { feed(Event::backoff_over); });
}

void Supervisor::drain() {
  spare_->drop();
  snapshots_->drain();
}

void Supervisor::finish() {
  const auto durable = snapshots_->newest_durable_step();
  // An attempt that ended before it reported anything has lost nothing either.
  const uint64_t step = std::max(attempts_.empty() ? recorder_->history().step : attempts_.back().last_step,
                                 durable.value_or(0));
  exit_code_ = decision_.exit_code;
  switch (decision_.kind) {
    case Decision::Kind::done:
      record("finished", {{"seconds", as_seconds(loop_.now() - run_started_)}});
      break;
    case Decision::Kind::stopped: {
      Json fields = {{"step", step}, {"resumable", durable.has_value()}};
      if (snapshot_lost_)
        fields["reason"] = "the newest snapshot could not be put on disk; see logs/bitctl.log";
      if (durable) fields["checkpoint"] = *durable;
      record("stopped", fields);
      break;
    }
    default:
      record("failed", {{"reason", decision_.reason}, {"exit_code", exit_code_}});
  }
}

void Supervisor::on_signal() {
  while (const int signal = next_signal(signals_.get())) {
    if (signal == SIGINT || signal == SIGTERM)
      ask_stop(signal_name(signal), stop_asked_ ? Urgency::now : Urgency::at_the_boundary);
    if (signal == SIGCHLD) reap_orphans();
    // SIGHUP: a closed terminal stops nothing.
  }
}

void Supervisor::ask_stop(const std::string& by, Urgency urgency) {
  const bool at_once = urgency == Urgency::now;
  if (stop_asked_ && !at_once) return;
  record("stop_requested", {{"by", by}, {"now", at_once}});
  view_.on_notice(at_once ? "stopping now"
                          : "stopping at the next step boundary, with a checkpoint (again: stop now)");
  stop_asked_ = true;
  now_.stop_asked = true;
  now_.restart_asked = false;
  feed(at_once ? Event::stop_now : Event::stop_asked);
}

Status Supervisor::ask_restart(Urgency urgency) {
  const bool at_once = urgency == Urgency::now;
  const Event event = at_once ? Event::restart_now : Event::restart_asked;
  if (!transition(state_, event))
    return fail(ErrorKind::invalid, fmt::format("it is {} already", name_of(state_)));
  record("restart_requested", {{"now", at_once}});
  // During back-off there is no attempt that could be told.
  if (state_ != State::waiting) now_.restart_asked = true;
  feed(event);
  return {};
}

// As sub-reaper we are given the trainer's orphans; its own end and the writer's are told by their pidfds.
void Supervisor::reap_orphans() {
  while (true) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    if (trainer_.is_running() && info.si_pid == trainer_.pid()) return;
    if (snapshots_ && info.si_pid == snapshots_->writer_pid()) return;
    if (spare_ && info.si_pid == spare_->pid()) return;
    ::waitpid(info.si_pid, nullptr, WNOHANG);
  }
}

void Supervisor::violate(const std::string& reason) {
  // The last words of one that has ended already count as well, unless its end was wanted.
  const bool has_ended = state_ == State::killing || state_ == State::deciding;
  if (has_ended ? stop_asked_ || !now_.violation.empty() : !trainer_runs()) return;
  now_.violation = reason;
  record("violation", {{"reason", reason}});
  feed(Event::violation);
}

void Supervisor::on_writer(pid_t pid) {
  isolation_->exclude(pid);
  if (const auto status = give_way(pid, cpu_shares(*isolation_)); !status)
    spdlog::info("the writer weighs as much as the training: {}", status.error().message);
}

// A training whose work nobody saves is not kept alive.
void Supervisor::on_writer_lost(const std::string& reason) {
  writer_lost_ = reason;
  violate(reason);
}

// No news is written down every 10 s as long as we vouch for the trainer; a file that stops moving is a real
// hang.
void Supervisor::restamp() {
  restamp_timer_ = loop_.call_after(seconds(1), [this] { restamp(); });
  snapshots_->look();
  if (unix_seconds(system_clock().wall()) - recorder_->history().pulse.timestamp < kRestampEvery.count())
    return;
  // A PULSE file of the trainer's own brings its own time with it.
  if (trainer_runs() && pulse_source_ && now_.reports_progress) return;
  const Observation seen{trainer_.is_running(), trainer_.is_running() ? state_of(trainer_.pid()) : '\0'};
  if (!trainer_runs() || (is_healthy(seen) && !hang_watch_.suspects())) record("restamped");
}

}  // namespace bitctl
