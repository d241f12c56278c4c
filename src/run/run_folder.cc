#include "run/run_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "base/install_layout.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

bool is_run(const fs::path& folder) {
  std::error_code error;
  if (folder.filename().string().starts_with(kPrunedPrefix)) return false;
  // A PULSE file that is a broken link still makes a run: its reader says what is wrong.
  return fs::is_directory(folder, error) &&
         (fs::exists(folder / "run.json", error) ||
          fs::symlink_status(folder / "training_status.json", error).type() != fs::file_type::not_found);
}

std::string runs_below(const std::string& folder) { return folder + "/runs"; }

// Empty where this user has no home to keep it in.
std::string user_runs() {
  const std::string state = state_home();
  return state.empty() ? "" : state + "/runs";
}

// "YYYYmmdd-HHMMSS" at the end of a run id; empty for folders that were named by hand, which are older than
// all.
std::string started(const std::string& id) {
  constexpr std::string_view kForm = "-dddddddd-dddddd";
  if (id.size() <= kForm.size()) return "";
  const std::string end = id.substr(id.size() - kForm.size());
  for (size_t i = 0; i < kForm.size(); ++i)
    if (kForm[i] == 'd' ? !std::isdigit(static_cast<unsigned char>(end[i])) : end[i] != kForm[i]) return "";
  return end.substr(1);
}

// Links are resolved, so that a run reached by two ways is one run and keeps its id.
void collect(const std::string& runs, std::set<std::string>& found) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(runs, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code dangling;
    const fs::path folder = fs::canonical(entry->path(), dangling);
    if (!dangling && is_run(folder)) found.insert(folder.string());
  }
}

std::vector<RunFolder> newest_first(const std::set<std::string>& found) {
  std::vector<RunFolder> runs(found.begin(), found.end());
  std::stable_sort(runs.begin(), runs.end(),
                   [](const RunFolder& a, const RunFolder& b) { return started(a.id()) > started(b.id()); });
  return runs;
}

tl::unexpected<Error> no_home() {
  return fail(ErrorKind::io,
              "Failed to get app data dir: this user has no home folder; set HOME or XDG_STATE_HOME");
}

Result<RunFolder> find_newest(const std::string& folder) {
  std::error_code error;
  const fs::path latest = fs::canonical(runs_below(folder) + "/latest", error);
  if (!error && is_run(latest)) return RunFolder(latest.string());
  for (const bool all : {false, true})
    if (const auto runs = list_runs(folder, all); !runs.empty()) return runs.front();
  if (user_runs().empty()) return no_home();
  return fail(ErrorKind::not_found,
              fmt::format("no run yet: looked in {} and {}", runs_below(folder), user_runs()));
}

Result<RunFolder> find_by_prefix(const std::string& name, const std::string& folder) {
  std::vector<RunFolder> matches;
  for (const RunFolder& run : list_runs(folder, true)) {
    if (run.id() == name) return run;
    if (run.id().starts_with(name)) matches.push_back(run);
  }
  if (matches.size() == 1) return matches.front();
  if (!matches.empty()) {
    std::vector<std::string> ids;
    for (const RunFolder& run : matches) ids.push_back(run.id());
    return fail(ErrorKind::invalid, fmt::format("\"{}\" may be each of {}", name, fmt::join(ids, ", ")));
  }
  if (std::error_code error; fs::is_directory(fs::path(folder) / name, error))
    return fail(ErrorKind::not_found,
                fmt::format("no run in {}: neither run.json nor training_status.json is there", name));
  if (user_runs().empty()) return no_home();
  return fail(ErrorKind::not_found,
              fmt::format("no run \"{}\": looked in {} and {}", name, runs_below(folder), user_runs()));
}

}  // namespace

std::string RunFolder::id() const { return filename_of(path_); }

std::string RunFolder::log_of_attempt(int attempt) const {
  return fmt::format("{}/attempt-{}.log", logs(), attempt);
}

Result<RunFolder> find_run(const std::string& name, const std::string& folder) {
  if (name.empty()) return find_newest(folder);
  for (const fs::path& where : {fs::path(folder), fs::path(runs_below(folder))}) {
    std::error_code error;
    // canonical also takes a trailing slash away, which would leave the id empty.
    if (const fs::path path = fs::canonical(where / name, error); !error && is_run(path))
      return RunFolder(path.string());
  }
  return find_by_prefix(name, folder);
}

std::vector<RunFolder> list_runs(const std::string& folder, bool all) {
  std::set<std::string> found;
  collect(runs_below(folder), found);
  if (all && !user_runs().empty()) collect(user_runs(), found);
  return newest_first(found);
}

std::vector<RunFolder> runs_in(const std::string& runs) {
  std::set<std::string> found;
  collect(runs, found);
  return newest_first(found);
}

}  // namespace bitctl
