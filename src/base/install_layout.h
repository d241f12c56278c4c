// Where bitctl's own pieces lie, told from where the running program lies. The build folder and an
// installation have one shape: bitctl, bitctl-writer, libbitctl_engine.so, libbitctl_snapshot.so and python/
// side by side.
#pragma once

#include <optional>
#include <string>

namespace bitctl {

struct InstallLayout {
  std::string folder;
  std::string writer;
  std::string engine;
  std::string snapshot_library;
  std::string python;  // folder that holds the package `bitctl`
};

const InstallLayout& install_layout();

// XDG base folders of bitctl; created by whoever writes there. Empty where the user has no home folder and
// the variable is not set.
std::string state_home();    // $XDG_STATE_HOME/bitctl, ~/.local/state/bitctl
std::string cache_home();    // $XDG_CACHE_HOME/bitctl, ~/.cache/bitctl
std::string runtime_home();  // $XDG_RUNTIME_DIR/bitctl, /tmp/bitctl-<uid>
std::string home_folder();   // empty for a user id that nobody has named and that has no $HOME

std::string absolute_path(const std::string& path);  // lexical; symbolic links stay

// An executable of that name, along PATH where it has no slash.
std::optional<std::string> find_program(const std::string& name);

// The Python that a user in `folder` means: $VIRTUAL_ENV, a .venv in the folder or above it, $CONDA_PREFIX,
// python3 along PATH.
std::optional<std::string> find_python(const std::string& folder);

}  // namespace bitctl
