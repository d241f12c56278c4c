// Moves among the folders of a run: what is broken is kept aside, what goes is renamed before it is deleted,
// the finished model is swapped in. Callers hold the lock that each function names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"

namespace bitctl {

// Deletes a folder and everything in it; a missing one is no error. Only ever given our own stages and trash.
Status remove_tree(const std::string& folder, FileOps& ops = system_file_ops());

// Renames it to .trash-…, syncs the parent, then deletes: no crash leaves half of it under a valid name.
// Under .lock.
Status remove_folder(const std::string& folder, FileOps& ops = system_file_ops());

// What the disk gets back when these folders of files go: all but the files that have names elsewhere, too.
uint64_t bytes_freed_by(const std::vector<std::string>& folders);

// Removes what a killed process left: .tmp-… and .trash-… folders; .old-… gets its name back where nothing
// stands there. Before anybody makes new ones.
void sweep_stages(const std::string& folder, FileOps& ops = system_file_ops());

// Moves a step that does not verify aside as .bad-<name>-<random>; nothing is deleted. The new path. Under
// .lock.
Result<std::string> set_aside(const std::string& step_folder, FileOps& ops = system_file_ops());

// Gives `stage` the name `target`, at which nothing stands: true; false where something does. Under a lock
// that keeps others from both names, for the file systems that cannot rename without replacing.
Result<bool> add_folder(const std::string& stage, const std::string& target,
                        FileOps& ops = system_file_ops());

// `stage` and `target` change their names, in one step where the file system can; where it cannot, the new
// target is durable before this returns.
Status exchange_folders(const std::string& stage, const std::string& target,
                        FileOps& ops = system_file_ops());

// <run>/model: hard links to the step's model and side files, swapped in by a rename, durable. Idempotent.
// Under .lock.
Status publish_model(const std::string& run_folder, const std::string& step_folder,
                     FileOps& ops = system_file_ops());

}  // namespace bitctl
