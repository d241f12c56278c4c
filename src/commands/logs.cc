#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/exit_code.h"
#include "base/fd.h"
#include "base/install_layout.h"
#include "base/process_id.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "run/history_reader.h"
#include "run/run_folder.h"

namespace bitctl {
namespace {

constexpr int kPollMs = 500;  // for file systems that give no events
constexpr size_t kFollowTail = 10;
constexpr long kBlock = 65536;

struct LogsOptions {
  std::string run;
  bool follow = false;
  bool raw = false;
  int attempt = 0;
  int tail = -1;
};

int newest_attempt(const RunFolder& folder) {
  int newest = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder.logs(), error)) {
    int number = 0;
    const std::string name = entry.path().filename();
    if (std::sscanf(name.c_str(), "attempt-%d.log", &number) == 1) newest = std::max(newest, number);
  }
  return newest;
}

// The next one that wrote anything; 0 where there is none yet.
int attempt_after(const RunFolder& folder, int attempt) {
  std::error_code error;
  for (int next = attempt + 1; next <= newest_attempt(folder); ++next)
    if (std::filesystem::exists(folder.log_of_attempt(next), error)) return next;
  return 0;
}

bool has_ended(HistoryReader& reader) {
  if (!reader.read()) return true;
  const History& history = reader.history();
  return history.state == "done" || history.state == "stopped" || history.state == "failed" ||
         !is_alive(history.supervisor);
}

// One attempt's log, printed whole lines at a time.
class LogPrinter {
 public:
  LogPrinter(std::string path, bool raw) : path_(std::move(path)), raw_(raw) {}
  ~LogPrinter() {
    if (file_ != nullptr) std::fclose(file_);
  }
  LogPrinter(const LogPrinter&) = delete;
  // False where there is no such log yet.
  bool open() {
    if (file_ == nullptr) file_ = std::fopen(path_.c_str(), "r");
    return file_ != nullptr;
  }

  void skip_to_last(size_t lines) {
    std::fseek(file_, 0, SEEK_END);
    long at = std::ftell(file_);
    // From the end backwards: a log may be larger than anybody waits for. The end of the last line begins
    // none.
    size_t ends = 0;
    bool last_byte = true;
    std::string block;
    while (at > 0 && lines > 0) {
      const long from = std::max(0L, at - kBlock);
      block.resize(static_cast<size_t>(at - from));
      std::fseek(file_, from, SEEK_SET);
      if (std::fread(block.data(), 1, block.size(), file_) != block.size()) break;
      for (size_t i = block.size(); i-- > 0; last_byte = false)
        if (block[i] == '\n' && !last_byte && ++ends == lines) {
          std::fseek(file_, from + static_cast<long>(i) + 1, SEEK_SET);
          return;
        }
      at = from;
    }
    std::fseek(file_, at, SEEK_SET);
  }

  // What is there now; `all` also prints a last line without its end.
  void print(bool all) {
    char buffer[65536];
    std::clearerr(file_);
    while (const size_t n = std::fread(buffer, 1, sizeof buffer, file_)) {
      if (raw_)
        std::fwrite(buffer, 1, n, stdout);
      else
        rest_.append(buffer, n);
      print_lines();
    }
    if (all && !rest_.empty()) {
      rest_ += '\n';
      print_lines();
    }
    std::fflush(stdout);
  }

 private:
  // A progress bar that was drawn over itself shows as it was last.
  void print_lines() {
    size_t start = 0;
    for (size_t end; (end = rest_.find('\n', start)) != std::string::npos; start = end + 1) {
      std::string_view line = std::string_view(rest_).substr(start, end - start);
      if (line.ends_with('\r')) line.remove_suffix(1);
      line = line.substr(line.rfind('\r') + 1);
      std::fputs((visible_text(line, Newlines::keep) + "\n").c_str(), stdout);
    }
    rest_.erase(0, start);
  }

  std::string path_;
  std::FILE* file_ = nullptr;
  bool raw_;
  std::string rest_;
};

int follow(const RunFolder& folder, const LogsOptions& options, int attempt) {
  const Fd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (inotify) ::inotify_add_watch(inotify.get(), folder.logs().c_str(), IN_MODIFY | IN_CREATE);
  HistoryReader reader(folder);
  bool first = true;
  while (true) {
    LogPrinter printer(folder.log_of_attempt(attempt), options.raw);
    if (first && printer.open())
      printer.skip_to_last(options.tail >= 0 ? static_cast<size_t>(options.tail) : kFollowTail);
    if (!first) std::printf("== attempt %d ==\n", attempt);
    first = false;
    int next = 0;
    while (true) {
      // Asked before the reading, so that what was written before the end is read after it.
      const bool ended = has_ended(reader);
      next = attempt_after(folder, attempt);
      if (printer.open()) printer.print(ended || next > 0);
      if (next > 0) break;
      if (ended || std::ferror(stdout)) return kOk;
      pollfd waiting{inotify.get(), POLLIN, 0};
      ::poll(&waiting, 1, kPollMs);
      char drain[4096];
      while (::read(inotify.get(), drain, sizeof drain) > 0) {
      }
    }
    attempt = next;
  }
}

int logs(const LogsOptions& options) {
  ::signal(SIGPIPE, SIG_DFL);
  const auto folder = find_run(options.run, absolute_path("."));
  if (!folder) return complain(folder.error(), kNoSuchRun);
  const int attempt = options.attempt > 0 ? options.attempt : newest_attempt(*folder);
  if (attempt == 0 && !options.follow)
    return complain({ErrorKind::not_found, folder->id() + " has no attempt yet"}, kFailed);
  if (options.follow) return follow(*folder, options, std::max(1, attempt));
  LogPrinter printer(folder->log_of_attempt(attempt), options.raw);
  if (!printer.open())
    return complain({ErrorKind::not_found, fmt::format("{} has no attempt {}", folder->id(), attempt)},
                    kFailed);
  if (options.tail >= 0) printer.skip_to_last(static_cast<size_t>(options.tail));
  printer.print(true);
  return kOk;
}

}  // namespace

void add_logs_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<LogsOptions>();
  CLI::App* command = app.add_subcommand("logs", "What the trainer wrote to stdout and stderr");
  add_run_argument(*command, options->run);
  command->add_flag("-f,--follow", options->follow, "Go on until the run has ended, across attempts");
  command->add_option("-n,--tail", options->tail, "Only the last N lines")->check(CLI::NonNegativeNumber);
  command->add_option("--attempt", options->attempt, "Of this attempt; the newest where left out")
      ->check(CLI::PositiveNumber);
  command->add_flag("--raw", options->raw, "The very bytes, also what could steer a terminal");
  command->callback([options, &action] { action = [options] { return after_output(logs(*options)); }; });
}

}  // namespace bitctl
