#include "watch/surroundings.h"

#include <dirent.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "base/process_id.h"
#include "base/read_file.h"
#include "watch/pressure.h"

namespace bitctl {
namespace {

constexpr double kStarved = 50;        // percent
constexpr uint64_t kAtWork = 1 << 20;  // bytes of a silence in which somebody saves or loads
constexpr int kMaxThreads = 64;

std::string word_in(const std::string& path) {
  std::string text = read_kernel_file(path);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// By the function that its prisoners wait in.
bool is_in_old_freezer(pid_t pid) { return word_in(fmt::format("/proc/{}/wchan", pid)) == "__refrigerator"; }

uint64_t io_bytes(pid_t pid) {
  uint64_t sum = 0, value = 0;
  std::istringstream text(read_kernel_file(fmt::format("/proc/{}/io", pid)));
  for (std::string key; text >> key >> value;)
    if (key == "read_bytes:" || key == "write_bytes:") sum += value;
  return sum;
}

}  // namespace

Surroundings look_around(const std::vector<pid_t>& pids) {
  Surroundings around;
  for (const pid_t pid : pids)
    if (state_of(pid) == 'T') around.stopped.push_back(pid);
  around.frozen = std::any_of(pids.begin(), pids.end(), is_in_old_freezer);
  around.cpu_pressure = read_pressure("cpu");
  for (const pid_t pid : pids) around.io_bytes += io_bytes(pid);
  return around;
}

StallStep next_step(const Surroundings& around, uint64_t io_before, bool woken, bool extended) {
  if (around.frozen) return StallStep::excuse;
  if (!around.stopped.empty() && !woken) return StallStep::wake;
  const bool is_at_work = around.io_bytes >= io_before + kAtWork;
  if ((around.cpu_pressure >= kStarved || is_at_work) && !extended) return StallStep::extend;
  return StallStep::act;
}

std::string describe_threads(pid_t pid) {
  std::string text;
  int count = 0;
  const std::string folder = fmt::format("/proc/{}/task", pid);
  const std::unique_ptr<DIR, int (*)(DIR*)> tasks(::opendir(folder.c_str()), ::closedir);
  while (const dirent* entry = tasks ? ::readdir(tasks.get()) : nullptr) {
    if (entry->d_name[0] == '.' || ++count > kMaxThreads) continue;
    const std::string task = folder + "/" + entry->d_name;
    const std::string stat = word_in(task + "/stat");
    const size_t close = stat.rfind(") ");
    const std::string wchan = word_in(task + "/wchan");
    text += fmt::format("{}{} {} {} {}", text.empty() ? "" : "; ", word_in(task + "/comm"), entry->d_name,
                        close == std::string::npos ? '?' : stat[close + 2],
                        wchan.empty() || wchan == "0" ? "-" : wchan);
  }
  return text;
}

}  // namespace bitctl
