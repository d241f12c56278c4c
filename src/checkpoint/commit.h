// The commit protocol: how the images of one step become a folder that is either there, whole and durable, or
// not there at all.
//
//   under an exclusive lock on .writer.lock, for the whole save:
//     stage in .tmp-step-…; write the files past the page cache, hashing and checking on the way; hard-link
//     the side files, and what is frozen where the newest step holds the same; write the manifest; fsync each
//     file, the manifest last; fsync the stage
//   then, under an exclusive lock on .lock:
//     rename the folder; fsync the parent; -> acknowledged; retention; unlock
//
// A reader that does not let go of .lock delays the rename by `reader_limit` at most; then it goes ahead,
// since it only adds a name, and retention waits for the next save. A failed fsync condemns the stage: it is
// removed, and the next try writes everything again from the arena under a new name.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_ops.h"
#include "base/lock.h"
#include "base/result.h"
#include "checkpoint/manifest.h"

namespace bitctl {

// One file of the step: its header as a private copy, its tensors in memory that does not change meanwhile.
struct FileImage {
  std::string name;
  std::string header;          // 8 + N bytes
  TensorHeader table;          // parsed from it
  const char* data = nullptr;  // table.data_bytes bytes; page-aligned, readable up to the next page border
  bool frozen = false;         // likely to be what the step before holds; only speed hangs on it

  uint64_t bytes() const { return header.size() + table.data_bytes; }
};

struct StepImage {
  std::string run;
  uint64_t step = 0;
  uint32_t attempt = 0;
  uint32_t world_size = 1;
  Json metrics = Json::object();
  std::vector<FileImage> files;
  std::string side_folder;  // files of it are linked into the step; empty: none
};

struct Saved {
  Manifest manifest;
  uint64_t written = 0;           // bytes of its files that are not links to others
  std::string damaged;            // a frozen file of an older step that is not what was written
  bool unchanged = false;         // the same content already stood there
  std::string reader_in_the_way;  // who held .lock when the rename went ahead without it
};

struct SaveOptions {
  Duration writer_limit = std::chrono::seconds(60);
  Duration reader_limit = std::chrono::seconds(2);
  // Views every tensor before anything is written and says what looked ("torch 2.13.0+cpu", "none"); an error
  // refuses the step for good. Values that are not finite are found while the bytes are hashed, in any case.
  std::function<Result<std::string>(const std::vector<FileImage>&)> check_tensors;
  // See StageWork.
  std::function<bool()> quiet;
  // Called when the step is durable, before retention.
  std::function<void(const Saved&)> on_committed;
  // Called under the same lock afterwards.
  std::function<void()> retain;
  FileOps* ops = nullptr;  // system_file_ops() where null
  const Clock* clock = nullptr;
};

// The file system refused (errno_value set), the lock was not free in time (locked), or the image itself is
// wrong (invalid, damaged). Nothing half-written stays.
Result<Saved> save_step(const std::string& checkpoints, const StepImage& image, const SaveOptions& options);

// Whether the same image may be saved later: whatever a disk or a lock does, but not where the image is
// wrong.
bool worth_another_try(const Error& error);

// How long to wait after so many failures in a row: 1 s, 2, 4 … 30. Disks come back, and a try at a full one
// costs next to nothing.
Duration retry_delay(int failures);

}  // namespace bitctl
