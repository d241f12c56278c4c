#include "doctor/examine.h"

#include <sys/file.h>

#include <filesystem>
#include <optional>

#include "base/install_layout.h"
#include "base/replace_file.h"
#include "checkpoint/catalog.h"
#include "doctor/disk.h"
#include "doctor/machine.h"
#include "doctor/python.h"

namespace bitctl {
namespace {

constexpr Duration kDiskLimit = std::chrono::milliseconds(9500);

bool is_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// Of the run, or the newest one in the folder; 0 where there is none.
uint64_t newest_checkpoint(const std::string& folder) {
  for (const std::string checkpoints : {"/checkpoints", "/runs/latest/checkpoints", "/latest/checkpoints"})
    for (const StepFolder& step : step_folders(folder + checkpoints))
      if (const auto manifest = inspect_step(step)) return manifest->bytes();
  return 0;
}

// The checks of a folder in their order, in a thread: every one of them may wait for its disk.
std::vector<Check> disk_checks(const std::string& folder, std::shared_ptr<uint64_t> checkpoint) {
  auto scratch = std::make_shared<std::optional<ScratchFolder>>();
  const auto in_scratch = [scratch](const std::string& name,
                                    std::function<Finding(const std::string&)> check) {
    return Check{name, [scratch, name, check] {
                   return *scratch ? check((*scratch)->path())
                                   : Finding{Finding::Verdict::failure, name, "not looked at", ""};
                 }};
  };
  return {
      {"space",
       [folder, checkpoint] { return check_space(folder, *checkpoint = newest_checkpoint(folder)); }},
      {"folder",
       [folder, scratch]() -> Finding {
         auto made = ScratchFolder::make(folder);
         if (!made)
           return {Finding::Verdict::failure, "folder", made.error().message,
                   "give bitctl one it can write to"};
         scratch->emplace(std::move(*made));
         return {Finding::Verdict::ok, "folder", folder, ""};
       }},
      in_scratch("disk speed",
                 [checkpoint](const std::string& path) { return check_speed(path, *checkpoint); }),
      in_scratch("direct I/O", check_direct_io),
      in_scratch("locks", [](const std::string& path) { return check_locks(path, ::flock); }),
      in_scratch("rename", check_rename),
      in_scratch("file times",
                 [](const std::string& path) { return check_file_time(path, system_clock().wall()); }),
      {"memory",
       [checkpoint, scratch] {
         scratch->reset();
         return check_memory_room(*checkpoint);
       }},
  };
}

}  // namespace

std::vector<Finding> examine(const std::string& folder) {
  if (!is_folder(folder))
    return {{Finding::Verdict::failure, "folder", "no such folder: " + folder, "name one that is there"}};
  const Mono deadline = system_clock().monotonic() + kDiskLimit;
  // Before there is a thread: it may move this process into a cgroup and back.
  std::vector<Finding> findings = check_isolation();
  RunningChecks disk(disk_checks(folder, std::make_shared<uint64_t>(0)));
  std::string torch;
  const Finding python = check_python(find_python(folder), torch);
  RunningChecks engine({{"engine", [torch] { return check_engine(install_layout().engine, torch); }}});
  findings.push_back(check_memory_files());
  for (const Finding& finding : disk.wait_until(deadline)) findings.push_back(finding);
  findings.push_back(python);
  for (const Finding& finding : engine.wait_until(deadline)) findings.push_back(finding);
  findings.push_back(check_clock());
  findings.push_back(check_stacks());
  return findings;
}

}  // namespace bitctl
