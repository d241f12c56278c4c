#include "run/run_links.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <filesystem>

#include "base/install_layout.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr int kTries = 10;

std::string user_list() { return state_home() + "/runs"; }

// Its target is known not to be there; one that cannot be looked at may be.
bool is_dead(const fs::path& link) {
  std::error_code error;
  if (!fs::is_symlink(link, error)) return false;
  return fs::status(link, error).type() == fs::file_type::not_found;
}

}  // namespace

void point_link(const std::string& link, const std::string& target) {
  const std::string temporary = fmt::format("{}.{}.tmp", link, random_hex8());
  if (::symlink(target.c_str(), temporary.c_str()) == 0 && ::rename(temporary.c_str(), link.c_str()) != 0)
    ::unlink(temporary.c_str());
}

void list_run(const RunFolder& folder) {
  std::error_code error;
  fs::create_directories(user_list(), error);
  if (error) {
    spdlog::warn("this run will not show in `bitctl ls --all`: cannot create {}: {}", user_list(),
                 error.message());
    return;
  }
  std::string link = user_list() + "/" + folder.id();
  if (fs::is_symlink(link, error) && fs::read_symlink(link, error) != folder.path())
    link += "-" + random_hex8();
  point_link(link, folder.path());
}

void mend_links(const std::string& runs) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(user_list(), error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (is_dead(entry->path())) ::unlink(entry->path().c_str());
  const std::string latest = runs + "/latest";
  std::string newest;
  // Again where a run began meanwhile, whose own link we may have replaced.
  for (int tries = 0; tries < kTries && (is_dead(latest) || tries > 0); ++tries) {
    const auto left = runs_in(runs);
    if (left.empty()) {
      ::unlink(latest.c_str());
      return;
    }
    if (std::exchange(newest, left.front().id()) == left.front().id()) return;
    point_link(latest, folder_of(left.front().path()) == runs ? newest : left.front().path());
  }
}

}  // namespace bitctl
