#include "checkpoint/pins.h"

#include "base/replace_file.h"
#include "checkpoint/catalog.h"

namespace bitctl {
namespace {

std::string pin_of(const std::string& checkpoints, uint64_t step) {
  return checkpoints + "/.pin-" + step_folder_name(step);
}

}  // namespace

Status pin_step(const std::string& checkpoints, uint64_t step, FileOps& ops) {
  const std::string path = pin_of(checkpoints, step);
  const int fd = ops.open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0) return fail_errno("cannot create " + path);
  if (ops.close(fd) != 0) return fail_errno("cannot close " + path);
  return sync_folder(checkpoints, ops);
}

Status unpin_step(const std::string& checkpoints, uint64_t step, FileOps& ops) {
  const std::string path = pin_of(checkpoints, step);
  if (ops.unlink(path) != 0) return errno == ENOENT ? Status() : fail_errno("cannot delete " + path);
  return sync_folder(checkpoints, ops);
}

bool is_pinned(const std::string& checkpoints, uint64_t step) {
  struct stat st {};
  return ::lstat(pin_of(checkpoints, step).c_str(), &st) == 0 || errno != ENOENT;
}

}  // namespace bitctl
