// bitctl-writer: started by `bitctl train`, never by hand.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "base/exit_code.h"
#include "base/log.h"
#include "writer/writer.h"

namespace bitctl {
namespace {

// Stops belong to the supervisor; the writer ends when it is told to, or when the supervisor is dead.
void ignore_stops() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

int run_writer(const char* argument) {
  auto options = writer_options_from(argument);
  if (!options) {
    std::fprintf(stderr, "bitctl-writer: %s\n", options.error().message.c_str());
    return kUsage;
  }
  ignore_stops();
  log_to_file(RunFolder(options->run_folder).own_log());
  Fd supervisor(static_cast<int>(::syscall(SYS_pidfd_open, options->supervisor, 0)));
  auto control = ControlPage::map(kWriterControlFd);
  if (!control) {
    std::fprintf(stderr, "bitctl-writer: %s\n", control.error().message.c_str());
    return kOwnFailure;
  }
  Writer writer(*options, Fd(kWriterSocketFd), std::move(*control), Fd(kWriterWakeFd), Fd(kWriterLockFd),
                std::move(supervisor));
  return writer.run();
}

}  // namespace
}  // namespace bitctl

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr,
                 "bitctl-writer is started by `bitctl train`; there is nothing to do with it by hand\n");
    return bitctl::kUsage;
  }
  try {
    const int code = bitctl::run_writer(argv[1]);
    bitctl::flush_log();
    return code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bitctl-writer: %s\n", error.what());
    return bitctl::kOwnFailure;
  }
}
