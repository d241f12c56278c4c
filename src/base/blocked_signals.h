// Blocks the signals that come from outside for as long as it lives, in this thread and in every thread
// started meanwhile: foreign libraries start threads of their own, and a signal must never be delivered to
// one of them.
#pragma once

#include <signal.h>

namespace bitctl {

class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t blocked;
    ::sigfillset(&blocked);
    // A fault of the thread itself is not held back: it must reach the handlers that report it.
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS})
      ::sigdelset(&blocked, fault);
    ::pthread_sigmask(SIG_BLOCK, &blocked, &before_);
  }
  ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace bitctl
