#include "base/install_layout.h"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <climits>
#include <filesystem>

#include "base/environment_variable.h"
#include "base/replace_file.h"
#include "base/text.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

std::string xdg_home(const char* variable, const std::string& otherwise) {
  const std::string base = environment_variable(variable);
  if (base.starts_with('/')) return base + "/bitctl";
  const std::string home = home_folder();
  return home.empty() ? "" : home + otherwise + "/bitctl";
}

bool is_executable(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

const InstallLayout& install_layout() {
  static const InstallLayout layout = [] {
    char buffer[PATH_MAX];
    const ssize_t n = ::readlink("/proc/self/exe", buffer, sizeof buffer);
    const std::string folder = n > 0 ? folder_of(std::string(buffer, static_cast<size_t>(n))) : ".";
    return InstallLayout{folder, folder + "/bitctl-writer", folder + "/libbitctl_engine.so",
                         folder + "/libbitctl_snapshot.so", folder + "/python"};
  }();
  return layout;
}

std::string home_folder() {
  if (const std::string home = environment_variable("HOME"); home.starts_with('/')) return home;
  const passwd* entry = ::getpwuid(::getuid());
  return entry ? entry->pw_dir : "";
}

std::string state_home() { return xdg_home("XDG_STATE_HOME", "/.local/state"); }
std::string cache_home() { return xdg_home("XDG_CACHE_HOME", "/.cache"); }
std::string runtime_home() {
  const std::string base = environment_variable("XDG_RUNTIME_DIR");
  return base.starts_with('/') ? base + "/bitctl" : fmt::format("/tmp/bitctl-{}", ::getuid());
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  fs::path absolute = fs::absolute(path, error).lexically_normal();
  if (!absolute.has_filename() && absolute.has_parent_path() && absolute != absolute.root_path())
    absolute = absolute.parent_path();
  return absolute.string();
}

std::optional<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return is_executable(name) ? std::optional(name) : std::nullopt;
  for (const auto& folder : split(environment_variable("PATH"), ':'))
    if (const std::string path = (folder.empty() ? "." : folder) + "/" + name; is_executable(path))
      return path;
  return std::nullopt;
}

std::optional<std::string> find_python(const std::string& folder) {
  if (const std::string venv = environment_variable("VIRTUAL_ENV");
      !venv.empty() && is_executable(venv + "/bin/python"))
    return venv + "/bin/python";
  for (fs::path at = absolute_path(folder);; at = at.parent_path()) {
    if (const std::string python = (at / ".venv/bin/python").string(); is_executable(python)) return python;
    if (at == at.parent_path()) break;
  }
  if (const std::string conda = environment_variable("CONDA_PREFIX");
      !conda.empty() && is_executable(conda + "/bin/python"))
    return conda + "/bin/python";
  return find_program("python3");
}

}  // namespace bitctl
