// The links by which runs are found: runs/latest, and the user's own list of every run.
#pragma once

#include <string>

#include "run/run_folder.h"

namespace bitctl {

// A symbolic link put in place by a rename, so that nobody meets a moment without it.
void point_link(const std::string& link, const std::string& target);

// Where `ls` and `status` find the run from any folder. A list that cannot be kept is no reason not to train:
// it is said in the log.
void list_run(const RunFolder& folder);

// After a run's folder has gone: takes dead links from the user's list, and lets <runs>/latest name the
// newest run that is left.
void mend_links(const std::string& runs);

}  // namespace bitctl
