// Modules that are almost an engine, one per ENTRY, for the loader's tests.
#include <pthread.h>
#include <signal.h>

#include "engine_api/engine_api.h"

namespace {

sigset_t mask_while_loading;
int entry_calls = 0;

__attribute__((constructor)) void note_mask() {
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask_while_loading);
}

// The test reads what happened here through the table, which is all that it can reach.
int check_tensors(const bitctl_tensor*, size_t, bitctl_engine_error* out) {
  out->text[0] = static_cast<char>(::sigismember(&mask_while_loading, SIGINT));
  out->text[1] = static_cast<char>(entry_calls);
  return 0;
}

[[maybe_unused]] bitctl_engine table(uint32_t abi, uint32_t bytes) {
  bitctl_engine engine{};
  engine.abi = abi;
  engine.bytes = bytes;
  engine.torch_version = "fake";
  engine.check_tensors = check_tensors;
  return engine;
}

}  // namespace

#define GOOD 1
#define REFUSES 2
#define OTHER_ABI 3
#define OTHER_SIZE 4

#if FAKE != 0
extern "C" const bitctl_engine* bitctl_engine_entry(uint32_t abi) {
  static const bitctl_engine engine =
      table(FAKE == OTHER_ABI ? abi + 1 : abi,
            FAKE == OTHER_SIZE ? sizeof(bitctl_engine) - 8 : sizeof(bitctl_engine));
  ++entry_calls;
  return FAKE == REFUSES ? nullptr : &engine;
}
#endif
