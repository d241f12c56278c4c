// Talking to the supervisor of a run that is in progress.
#pragma once

#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"
#include "run/run_folder.h"

namespace bitctl {

// "demo-… is not in progress: <how it ended, and what to do>".
tl::unexpected<Error> not_in_progress(const RunFolder& folder);

class ControlConnection {
 public:
  // Error::not_found where no supervisor of that run is alive.
  static Result<ControlConnection> open(const RunFolder& folder);

  // Sends and waits for the answer; a refusal is Error::invalid with its reason.
  Status ask(const Json& message);
  // Until the supervisor is gone.
  void wait_for_the_end();

 private:
  explicit ControlConnection(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace bitctl
