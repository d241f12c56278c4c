// A cgroup of our own where this user may make none: the user's systemd gives one away
// (systemd-run --user --scope -p Delegate=yes).
#pragma once

#include <string>

#include "base/result.h"

namespace bitctl {

// Starts this very command again inside such a scope, by exec: same process, same terminal. Returns where
// that is not needed, not wanted (BITCTL_ISOLATION), or not to be had; the environment's BITCTL_SCOPE then
// says why, for Isolation::choose. Before any lock is taken and any thread started. Asks systemd first, which
// takes some ten milliseconds and at most 5 s.
void enter_scope_if_needed();

// Whether systemd would give us one; starts a program in a scope to find out, at most 5 s.
Status try_scope();

}  // namespace bitctl
