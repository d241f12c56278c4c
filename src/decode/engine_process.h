// A child process that computes for a decoder: JSON lines on a socket, raw bytes behind a reply where it says
// {"bytes": n}. The other end of python/bitctl/transformers_engine.py.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"
#include "base/worker_command.h"

namespace bitctl {

class EngineProcess {
 public:
  // Asked some ten times a second while a reply is waited for; false ends the process.
  using GoOn = std::function<bool()>;

  struct File {
    std::string name;  // its role, for the child
    int fd = -1;
  };

  // "socket=3" and "name=N" of each file, which the child gets, are added to the command line. Does not wait
  // for the child. It ends when this object does, or this process, however that happens.
  static Result<std::unique_ptr<EngineProcess>> start(WorkerCommand command, const std::vector<File>& files);
  ~EngineProcess() { end(); }
  EngineProcess(const EngineProcess&) = delete;

  // Blocks for the reply; not from two threads at once. `data` takes the bytes behind it, exactly.
  // Error::invalid is the child's own {"error": …}; after any other error the child has ended, and all that
  // is asked is answered by that error.
  Result<Json> ask(const Json& request, std::span<char> data = {}, const GoOn& go_on = nullptr);
  bool running() const { return static_cast<bool>(process_); }

 private:
  EngineProcess() = default;

  // False where nothing more will come.
  bool wait(const GoOn& go_on);
  Result<Json> take_line(const GoOn& go_on);
  bool take_bytes(std::span<char> data);
  tl::unexpected<Error> ended();
  tl::unexpected<Error> end_with(std::string reason);
  void end();

  Fd process_;  // pidfd
  Fd socket_;
  Fd output_;    // the child's stdout and stderr, to tell why it died
  Fd lifeline_;  // the child's standard input; closed with us by the kernel at the latest
  std::string received_;
  std::string last_output_;
  std::string end_;  // why it has ended
};

}  // namespace bitctl
