#include "run/create_run.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>

#include "base/install_layout.h"
#include "base/process_id.h"
#include "base/read_file.h"
#include "base/replace_file.h"
#include "base/strict_json.h"
#include "run/history.h"
#include "run/run_links.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr Duration kWaitSlice = std::chrono::seconds(1);

std::string name_lock_path(const std::string& runs, const std::string& name) {
  return fmt::format("{}/.{}.lock", runs, name);
}

// A folder is as durable as its name in the one above: a checkpoint must not be lost with the run that it
// belongs to.
Status make_folders(const std::string& path) {
  std::error_code error;
  if (path.empty() || fs::is_directory(path, error)) return {};
  if (auto status = make_folders(fs::path(path).parent_path()); !status) return status;
  if (::mkdir(path.c_str(), 0777) != 0 && !fs::is_directory(path, error))
    return fail_errno("cannot create " + path);
  return sync_folder(folder_of(path));
}

Error in_progress(const Error& error) {
  return {error.kind, "Training already in progress: " + error.message, error.errno_value};
}

std::string first_line(const std::string& path) {
  const auto text = read_small_file(path, 1 << 20, Links::follow);
  return text ? text->substr(0, text->find('\n')) : std::string();
}

bool is_commit(const std::string& text) {
  return (text.size() == 40 || text.size() == 64) &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// The commit that `folder` is at, without running git; null outside a repository.
Json git_commit(const std::string& folder) {
  for (fs::path at = folder;; at = at.parent_path()) {
    std::string git = (at / ".git").string();
    // A worktree's .git is a file that names the folder.
    if (const std::string line = first_line(git); line.starts_with("gitdir: ")) git = line.substr(8);
    const std::string head = first_line(git + "/HEAD");
    if (is_commit(head)) return head;
    if (head.starts_with("ref: ")) {
      const std::string ref = head.substr(5);
      const std::string common = first_line(git + "/commondir");
      const std::string shared = common.empty() ? git : common.starts_with('/') ? common : git + "/" + common;
      if (const std::string commit = first_line(shared + "/" + ref); is_commit(commit)) return commit;
      std::ifstream packed(shared + "/packed-refs");
      for (std::string commit, name; packed >> commit >> name;)
        if (name == ref && is_commit(commit)) return commit;
      return nullptr;
    }
    if (at == at.parent_path()) return nullptr;
  }
}

Json machine() {
  utsname names{};
  ::uname(&names);
  struct sysinfo info {};
  ::sysinfo(&info);
  std::string os = names.sysname;
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);)
    if (line.starts_with("PRETTY_NAME=\"")) os = line.substr(13, line.size() - 14);
  return {{"hostname", names.nodename},
          {"os", fmt::format("{}, {} {}", os, names.sysname, names.release)},
          {"cpus", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"memory_bytes", static_cast<uint64_t>(info.totalram) * info.mem_unit}};
}

Json run_facts(const RunConfig& config, const RunFolder& folder, const std::string& version, Wall now) {
  Json argv = Json::array();
  for (const std::string& word : trainer_argv(config, folder.path()))
    argv.push_back(mask_secrets(word, config.secrets));
  return {{"argv", std::move(argv)},
          {"cwd", config.workdir},
          {"name", config.name},
          {"labels", config.labels},
          {"config", config.source.empty() ? Json(nullptr) : Json(config.source)},
          {"git_commit", git_commit(config.workdir)},
          {"machine", machine()},
          {"boot_id", boot_id()},
          {"bitctl_version", version},
          {"created", unix_seconds(now)}};
}

Result<FileLock> lock_at_once(const std::string& path) {
  auto lock = FileLock::acquire(path, FileLock::Mode::exclusive, Duration::zero());
  if (!lock && lock.error().kind == ErrorKind::locked) return tl::unexpected(in_progress(lock.error()));
  return lock;
}

}  // namespace

Result<HeldRun> create_run(const RunConfig& config, const std::string& bitctl_version, Wall now) {
  if (auto status = make_folders(config.output.dir); !status) return forward(std::move(status));
  // One spelling of the path for everything that is written down or marked with it.
  std::error_code unresolved;
  const fs::path canonical = fs::canonical(config.output.dir, unresolved);
  const std::string runs = unresolved ? config.output.dir : canonical.string();
  auto name_lock = lock_at_once(name_lock_path(runs, config.name));
  if (!name_lock) return forward(std::move(name_lock));

  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const RunFolder folder(fmt::format("{}/{}-{:%Y%m%d-%H%M%S}", runs, config.name, fmt::localtime(seconds)));
  if (::mkdir(folder.path().c_str(), 0777) != 0) {
    if (errno == EEXIST)
      return fail(ErrorKind::locked, folder.path() + " exists: a run of this name began in this very second");
    return fail_errno("cannot create " + folder.path());
  }
  if (auto status = sync_folder(runs); !status) return forward(std::move(status));
  auto run_lock = lock_at_once(folder.pulse_lock());
  if (!run_lock) return forward(std::move(run_lock));
  for (const std::string& path : {folder.logs(), folder.checkpoints()})
    if (auto status = make_folders(path); !status) return forward(std::move(status));
  if (auto status = replace_file(folder.config(), effective_yaml(config)); !status)
    return forward(std::move(status));
  const Json facts = run_facts(config, folder, bitctl_version, now);
  const std::string text = facts.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (auto status = replace_file(folder.run_json(), text); !status) return forward(std::move(status));
  point_link(runs + "/latest", folder.id());
  list_run(folder);
  return HeldRun{folder, std::move(*name_lock), std::move(*run_lock)};
}

Result<HeldRun> hold_run(const RunFolder& folder, const RunConfig& config,
                         const std::function<void(const std::string&)>& on_wait) {
  // A dead supervisor's writer goes on its own, however long its disk takes; one that lives is not waited
  // for.
  auto run_lock = FileLock::acquire(folder.pulse_lock(), FileLock::Mode::exclusive, Duration::zero());
  for (bool told = false; !run_lock && run_lock.error().kind == ErrorKind::locked; told = true) {
    const auto history = read_history(folder.events());
    if (history && is_alive(history->supervisor)) {
      const pid_t pid = history->supervisor.pid;
      return fail(ErrorKind::locked,
                  fmt::format("Training already in progress: {} is held by pid {} (started {}): {}",
                              folder.path(), pid, start_time_of(pid), command_of(pid)));
    }
    if (!told) on_wait(run_lock.error().message);
    run_lock = FileLock::acquire(folder.pulse_lock(), FileLock::Mode::exclusive, kWaitSlice);
  }
  if (!run_lock) return forward(std::move(run_lock));
  auto name_lock = lock_at_once(name_lock_path(folder_of(folder.path()), config.name));
  if (!name_lock) return forward(std::move(name_lock));
  return HeldRun{folder, std::move(*name_lock), std::move(*run_lock)};
}

}  // namespace bitctl
