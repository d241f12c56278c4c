#include "supervise/spare.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/install_layout.h"
#include "base/read_file.h"
#include "base/seqpacket.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "launch/memory.h"
#include "watch/memory.h"
#include "watch/messages.h"

namespace bitctl {
namespace {

constexpr Duration kAnswerLimit = std::chrono::seconds(1);
constexpr int kDeathLimitMs = 1000;

std::string how_it_ended(const ExitStatus& status) {
  return status.signalled ? "killed by " + signal_name(status.code)
                          : fmt::format("exit code {}", status.code);
}

}  // namespace

Spare::Spare(EventLoop& loop, Isolation& isolation, std::function<void(Json)> record)
    : loop_(loop),
      isolation_(isolation),
      record_(std::move(record)),
      process_(loop, {.on_exit = [this](const ExitStatus& status) { on_exit(status); },
                      .on_gone = [this] { state_ = State::none; },
                      .on_unkillable = [this](const auto&) { over_ = true; }}) {}

Spare::~Spare() {
  loop_.cancel(timer_);
  close_link();
  if (!process_.is_running()) return;
  process_.tree()->kill();
  const auto [leader, tree] = process_.release();
  pollfd dead{leader.pidfd.get(), POLLIN, 0};
  ::poll(&dead, 1, kDeathLimitMs);
  reap(leader.pidfd.get());
}

void Spare::record_off(const std::string& reason) {
  if (std::exchange(off_, reason) != reason) record_({{"state", "off"}, {"reason", reason}});
}

void Spare::rule_out(const std::string& reason) {
  record_off(reason);
  drop();
}

void Spare::drop() {
  over_ = true;
  end();
}

void Spare::learn(const Json& message, Fd modules, bool own_interpreter) {
  if (!wants_modules()) return;
  facts_.own_interpreter = own_interpreter;
  facts_.objection = shortened(get_text(message, "objection", ""), 300);
  facts_.spare_bytes = get_unsigned(message, "resident_bytes").value_or(0);
  if (!own_interpreter || !facts_.objection.empty()) return rule_out(why_no_spare(facts_));
  modules_ = std::move(modules);
  due_ = true;
}

void Spare::make(SpawnPlan plan) {
  due_ = false;
  const MemoryState memory = read_memory_state();
  facts_.available_bytes =
      std::min(memory.available_bytes, MemoryEvidence().room().value_or(memory.available_bytes));
  facts_.memory_pressure = memory.pressure;
  if (const std::string reason = why_no_spare(facts_); !reason.empty()) return record_off(reason);
  auto pair = seqpacket_pair();
  if (!pair) return record_off(pair.error().message);
  plan.output.clear();
  plan.inherited = {pair->second.get(), modules_.get()};
  // It is nobody until it is told; and it is found by its sitecustomize alone.
  plan.env.erase("BITCTL_ATTEMPT");
  plan.env.erase("BITCTL_TOKEN");
  plan.env["PYTHONPATH"] = install_layout().python + "/bitctl/spare_start:" + plan.env["PYTHONPATH"];
  const std::string name = fmt::format("spare-{}", ++made_);
  if (const auto started = process_.start(std::move(plan), isolation_, name, Isolation::Role::spare);
      !started)
    return record_off(started.error().message);
  state_ = State::starting;
  made_at_ = loop_.now();
  off_.clear();
  link_ = std::move(pair->first);
  loop_.watch(link_.get(), EPOLLIN, [this](uint32_t) { read_link(); });
  record_({{"state", "starting"}, {"pid", process_.pid()}});
}

void Spare::read_link() {
  while (link_) {
    const auto received = receive_message(link_.get());
    if (!received && received.error().kind == ErrorKind::timeout) return;
    if (!received || received->closed()) return close_link();  // its pidfd tells the rest
    if (const auto message = message_from(received->bytes)) handle(*message);
  }
}

void Spare::handle(const Json& message) {
  const std::string type = get_text(message, "type");
  if (type == "ready" && state_ == State::starting) {
    state_ = State::ready;
    record_({{"state", "ready"}, {"seconds", as_seconds(loop_.now() - made_at_)}});
  } else if (type == "unfit" && state_ == State::starting) {
    rule_out(shortened(get_text(message, "reason"), 300));
  } else if (type == "gone" && state_ == State::going) {
    become_trainer();
  }
}

void Spare::go(const Json& env, const std::string& log,
               std::function<void(std::optional<Trainer>)> on_answer) {
  state_ = State::going;
  on_answer_ = std::move(on_answer);
  const Fd output(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!output) return give_up(fail_errno("cannot open " + log).value().message);
  const auto sent = send_message(link_.get(), dump_line({{"type", "go"}, {"env", env}}), {output.get()});
  if (!sent) return give_up(sent.error().message);
  timer_ = loop_.call_after(kAnswerLimit, [this] { give_up("no answer"); });
}

void Spare::become_trainer() {
  loop_.cancel(timer_);
  close_link();
  state_ = State::none;
  record_({{"state", "used"}, {"pid", process_.pid()}});
  auto [leader, tree] = process_.release();
  tree->become_attempt();
  std::exchange(on_answer_, nullptr)(Trainer{std::move(leader), std::move(tree)});
}

// A spare that did not answer must not begin to later.
void Spare::give_up(const std::string& reason) {
  loop_.cancel(timer_);
  ++facts_.deaths;
  record_({{"state", "died"}, {"reason", reason}});
  end();
  if (on_answer_) std::exchange(on_answer_, nullptr)(std::nullopt);
}

void Spare::on_exit(const ExitStatus& status) {
  // What it said last is why; but one that has died is no trainer, whatever it said.
  if (state_ == State::starting) read_link();
  if (state_ == State::ending || state_ == State::none) return;
  due_ = true;
  give_up(how_it_ended(status));
}

void Spare::end() {
  close_link();
  if (state_ == State::none || state_ == State::ending) return;
  state_ = State::ending;
  process_.kill();
}

void Spare::close_link() {
  if (link_) loop_.unwatch(link_.get());
  link_.reset();
}

bool has_command_line(pid_t pid, const std::vector<std::string>& argv) {
  std::string wanted;
  for (const std::string& word : argv) wanted += word + '\0';
  return read_kernel_file(fmt::format("/proc/{}/cmdline", pid)) == wanted;
}

}  // namespace bitctl
