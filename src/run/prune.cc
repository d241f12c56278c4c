#include "run/prune.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "base/lock.h"
#include "base/replace_file.h"
#include "run/history.h"
#include "run/run_links.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

// A reader that looks whether the run is alive holds the lock for an instant.
constexpr Duration kLockPatience = std::chrono::milliseconds(500);

Result<FileLock> hold(const RunFolder& folder, Duration patience) {
  return FileLock::acquire(folder.pulse_lock(), FileLock::Mode::exclusive, patience);
}

// The lock's own file goes last: who meets a folder without it takes a new one, and finds nobody at work.
Status delete_folder(const RunFolder& folder) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder.path(), error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    if (entry->path() == folder.pulse_lock()) continue;
    std::error_code refused;
    fs::remove_all(entry->path(), refused);
    if (refused) return fail_errno("cannot delete " + entry->path().string(), refused.value());
  }
  if (!error) fs::remove_all(folder.path(), error);
  if (error) return fail_errno("cannot delete " + folder.path(), error.value());
  return {};
}

}  // namespace

std::vector<size_t> pruned_by(const PruneRule& rule, const std::vector<Duration>& ages) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < ages.size(); ++i)
    if ((rule.keep && i >= *rule.keep) || (rule.older_than && ages[i] > *rule.older_than))
      chosen.push_back(i);
  return chosen;
}

Duration age_of_run(const RunFolder& folder, Wall now) {
  const auto history = read_history(folder.events());
  int64_t last = history ? history->pulse.timestamp : 0;
  struct stat made {};
  if (last == 0 && ::stat(folder.run_json().c_str(), &made) == 0) last = made.st_mtime;
  return std::chrono::seconds(unix_seconds(now) - last);
}

uint64_t disk_usage(const std::string& folder) {
  std::set<std::pair<dev_t, ino_t>> counted;
  uint64_t bytes = 0;
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(folder, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    struct stat st {};
    if (::lstat(entry->path().c_str(), &st) == 0 && counted.insert({st.st_dev, st.st_ino}).second)
      bytes += static_cast<uint64_t>(st.st_blocks) * 512;
  }
  return bytes;
}

Status remove_run(const RunFolder& folder) {
  std::error_code error;
  if (!fs::is_regular_file(folder.run_json(), error))
    return fail(ErrorKind::invalid, folder.path() + " holds no run.json: it is not a run that bitctl made");
  auto lock = hold(folder, kLockPatience);
  if (!lock && lock.error().kind == ErrorKind::locked)
    return fail(ErrorKind::locked, fmt::format("{} is in progress: {}", folder.id(), lock.error().message));
  if (!lock) return forward(std::move(lock));
  const std::string runs = folder_of(folder.path());
  const RunFolder aside(fmt::format("{}/{}{}-{}", runs, kPrunedPrefix, folder.id(), random_hex8()));
  if (::rename(folder.path().c_str(), aside.path().c_str()) != 0)
    return fail_errno("cannot rename " + folder.path());
  // Else a power failure could bring the name back with half of what was behind it.
  if (auto status = sync_folder(runs); !status) return status;
  mend_links(runs);
  return delete_folder(aside);
}

uint64_t clear_leftovers(const std::string& runs) {
  uint64_t bytes = 0;
  std::error_code error;
  for (auto entry = fs::directory_iterator(runs, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const RunFolder left(entry->path().string());
    if (!left.id().starts_with(kPrunedPrefix)) continue;
    const auto lock = hold(left, Duration::zero());
    if (!lock) continue;  // somebody is at it
    const uint64_t usage = disk_usage(left.path());
    if (delete_folder(left)) bytes += usage;
  }
  return bytes;
}

}  // namespace bitctl
