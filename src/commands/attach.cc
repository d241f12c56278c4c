#include <fmt/format.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "commands/console.h"
#include "commands/control.h"
#include "run/history_reader.h"
#include "run/run_labels.h"
#include "run/run_state.h"

namespace bitctl {
namespace {

constexpr Duration kLookEvery = std::chrono::milliseconds(250);

struct AttachOptions {
  std::string run;
  bool plain = false;
};

// As long as it lives, each key comes at once and unseen; Ctrl-C stays a signal. What was typed before is
// forgotten, so that no key answers a question that was not asked yet.
class SingleKeys {
 public:
  SingleKeys() {
    ::tcgetattr(STDIN_FILENO, &before_);
    termios keys = before_;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    keys.c_cc[VMIN] = 1;
    keys.c_cc[VTIME] = 0;
    ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &keys);
  }
  ~SingleKeys() { ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_); }
  SingleKeys(const SingleKeys&) = delete;

 private:
  termios before_{};
};

// One `bitctl attach`: a reader of the run's history, and a voice to its supervisor when the user says stop.
class Attachment {
 public:
  Attachment(const RunFolder& folder, bool plain)
      : folder_(folder),
        signals_(block_and_watch_signals({SIGINT, SIGTERM, SIGHUP})),
        console_(loop_, printer_, read_labels(folder.run_json()), plain),
        reader_(folder) {}
  ~Attachment() { no_question(); }

  int run() {
    if (auto status = reader_.read([this](const Json& row) { remember(row); }); !status)
      return complain(status.error(), kFailed);
    const History& history = reader_.history();
    printer_.print(STDOUT_FILENO, fmt::format("attached to {} (Ctrl-C asks before it does anything): {}\n",
                                              folder_.path(), visible_text(history.pulse.message)));
    console_.begin(history);
    loop_.watch(signals_.get(), EPOLLIN, [this](uint32_t) { on_signal(); });
    // A pipe whose reader has gone says so at once; a file refuses to be watched, and needs no watching.
    loop_.watch(STDOUT_FILENO, 0, [this](uint32_t) { detach(); });
    look();
    while (!code_) loop_.run_once();
    no_question();
    console_.close();
    if (detached_)
      printer_.print(STDOUT_FILENO, fmt::format("detached; it goes on: bitctl attach {}\n", folder_.id()));
    else if (*code_ != kInterrupted)
      print_what_next(printer_, folder_, reader_.history(), *code_);
    return *code_;
  }

 private:
  void look() {
    // Asked before the reading, so that the last words are read after it.
    const bool over = !is_in_progress(folder_, reader_.history());
    const auto status = reader_.read([this](const Json& row) {
      remember(row);
      console_.on_row(reader_.history(), row);
    });
    if (!status) {
      code_ = complain(status.error(), kFailed);
    } else if (over) {
      code_ = code_of_the_run();
    } else {
      loop_.call_after(kLookEvery, [this] { look(); });
    }
  }

  void remember(const Json& row) {
    if (get_text(row, "kind") == "failed")
      failure_ = static_cast<int>(get_unsigned(row, "exit_code").value_or(kOwnFailure));
    if (get_text(row, "kind") == "supervising") stop_asked_ = false;
    if (get_text(row, "kind") == "stop_requested") stop_asked_ = true;
  }

  int code_of_the_run() const {
    const std::string& state = reader_.history().state;
    return state == "done" ? kOk : state == "stopped" ? kStopped : state == "failed" ? failure_ : kOwnFailure;
  }

  void on_signal() {
    while (const int signal = next_signal(signals_.get())) {
      if (signal != SIGINT || question_)
        detach();
      else if (::isatty(STDIN_FILENO))
        ask();
      else
        code_ = kInterrupted;
    }
  }

  void ask() {
    question_.emplace();
    console_.note(
        fmt::format("{} (s), detach (d), go on (any other key)?", stop_asked_ ? "stop now" : "stop"));
    loop_.watch(STDIN_FILENO, EPOLLIN, [this](uint32_t) { on_key(); });
  }

  void on_key() {
    char key = 'd';  // a terminal that is gone
    [[maybe_unused]] const ssize_t n = ::read(STDIN_FILENO, &key, 1);
    no_question();
    if (key == 'd' || key == 'D') return detach();
    if (key == 's' || key == 'S') return stop();
    console_.note("it goes on");
  }

  void no_question() {
    if (!question_) return;
    loop_.unwatch(STDIN_FILENO);
    question_.reset();
  }

  void stop() {
    auto control = ControlConnection::open(folder_);
    const Status asked = control ? control->ask({{"type", "stop"}, {"now", stop_asked_}})
                                 : Status(tl::unexpected(control.error()));
    if (!asked) console_.note(visible_text(asked.error().message));
  }

  void detach() {
    detached_ = true;
    code_ = kOk;
  }

  RunFolder folder_;
  Fd signals_;  // blocked before the printer's thread begins
  EventLoop loop_;
  Printer printer_;
  Console console_;
  HistoryReader reader_;
  std::optional<SingleKeys> question_;
  std::optional<int> code_;
  int failure_ = kOwnFailure;
  bool stop_asked_ = false;
  bool detached_ = false;
};

int attach(const AttachOptions& options) {
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const auto history = read_history(folder->events());
  if (!history || !is_in_progress(*folder, *history))
    return complain(not_in_progress(*folder).value(), kFailed);
  ::signal(SIGPIPE, SIG_IGN);
  return Attachment(*folder, options.plain).run();
}

}  // namespace

void add_attach_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<AttachOptions>();
  CLI::App* command =
      app.add_subcommand("attach", "Show a run that is in progress, as `train` does, until it ends");
  add_run_argument(*command, options->run);
  command->add_flag("--plain", options->plain, "One line an event also on a terminal");
  command->footer(
      "Ctrl-C asks: stop (s), detach (d), go on (any other key); once more detaches.\n"
      "Exit codes: those of `bitctl train` where the run has ended; 0 detached; 1 not in progress\n");
  command->callback([options, &action] { action = [options] { return attach(*options); }; });
}

}  // namespace bitctl
