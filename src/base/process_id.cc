#include "base/process_id.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <sstream>

#include "base/read_file.h"
#include "base/strict_json.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

struct Stat {
  char state = 0;
  uint64_t start_ticks = 0;
};

// The command in parentheses may hold spaces and parentheses itself, so fields are counted after the last
// ')'.
std::optional<Stat> read_stat(pid_t pid) {
  const std::string text = read_kernel_file(fmt::format("/proc/{}/stat", pid));
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(close + 1));
  Stat stat;
  fields >> stat.state;
  std::string skipped;
  for (int field = 4; field <= 21; ++field) fields >> skipped;
  if (!(fields >> stat.start_ticks)) return std::nullopt;
  return stat;
}

}  // namespace

const std::string& boot_id() {
  static const std::string id = [] {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string text;
    std::getline(file, text);
    return text;
  }();
  return id;
}

std::optional<ProcessId> process_id_of(pid_t pid) {
  const auto stat = read_stat(pid);
  if (!stat) return std::nullopt;
  return ProcessId{pid, stat->start_ticks, boot_id()};
}

ProcessId own_process_id() { return process_id_of(::getpid()).value_or(ProcessId{::getpid(), 0, boot_id()}); }

bool is_alive(const ProcessId& id) {
  if (id.boot_id != boot_id()) return false;
  const auto stat = read_stat(id.pid);
  return stat && stat->start_ticks == id.start_ticks && stat->state != 'Z' && stat->state != 'X';
}

char state_of(pid_t pid) {
  const auto stat = read_stat(pid);
  return stat ? stat->state : 0;
}

std::string command_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid));
  std::string text;
  for (std::string word; std::getline(file, word, '\0');) {
    // `--set run.env.HF_TOKEN=…`: a value for the trainer's environment may be a secret.
    const size_t field = word.find("run.env.");
    const size_t value = field == std::string::npos ? field : word.find('=', field);
    if (value != std::string::npos) word = word.substr(0, value) + "=…";
    text += (text.empty() ? "" : " ") + word;
  }
  if (text.size() > 200) text.resize(200);
  return visible_text(text);
}

std::string start_time_of(pid_t pid) {
  const auto stat = read_stat(pid);
  std::ifstream file("/proc/stat");
  std::string key;
  time_t boot = 0;
  while (file >> key) {
    if (key == "btime") file >> boot;
    if (boot != 0) break;
    file.ignore(4096, '\n');
  }
  if (!stat || boot == 0) return {};
  const time_t started =
      boot + static_cast<time_t>(stat->start_ticks / static_cast<uint64_t>(sysconf(_SC_CLK_TCK)));
  struct tm local {};
  char buffer[32];
  if (!localtime_r(&started, &local) || strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M:%S", &local) == 0)
    return {};
  return buffer;
}

void to_json(nlohmann::ordered_json& j, const ProcessId& id) {
  j = {{"pid", id.pid}, {"start_ticks", id.start_ticks}, {"boot_id", id.boot_id}};
}

ProcessId process_id_from(const nlohmann::ordered_json& j) {
  ProcessId id;
  id.pid = static_cast<pid_t>(std::min<uint64_t>(get_unsigned(j, "pid").value_or(0), INT_MAX));
  id.start_ticks = get_unsigned(j, "start_ticks").value_or(0);
  id.boot_id = get_text(j, "boot_id");
  return id;
}

}  // namespace bitctl
