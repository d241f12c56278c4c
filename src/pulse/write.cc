#include "pulse/write.h"

#include <cmath>

#include "base/replace_file.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kMaxMessageBytes = 4096;  // escaped, still far below what a reader takes

// Why a reader would refuse it; empty where it would not.
const char* objection(const PulseStatus& status) {
  if (!std::isfinite(status.epoch) || status.epoch < 0) return "epoch must be a finite number from 0 up";
  if (!std::isfinite(status.total_epochs) || status.total_epochs < 0)
    return "total_epochs must be a finite number from 0 up";
  if (!std::isfinite(status.loss)) return "loss must be a finite number";
  if (status.timestamp < 0) return "timestamp must not be negative";
  return "";
}

}  // namespace

Status write_pulse(const std::string& path, const PulseStatus& status, FileOps& ops) {
  if (const std::string why = objection(status); !why.empty())
    return fail(ErrorKind::invalid, "cannot write " + path + ": " + why);
  PulseStatus fitting = status;
  fitting.message = shortened(status.message, kMaxMessageBytes);
  return replace_file(path, to_file_bytes(fitting), ops);
}

}  // namespace bitctl
