// Inside the module failures are exceptions, as libtorch's own are. Nothing of that passes the C ABI: each of
// its functions does its work behind `guarded`, which turns every exception into a code and a text.
#pragma once

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "base/blocked_signals.h"
#include "engine_api/engine_api.h"

namespace bitctl::engine {

// The caller asked for something that cannot be done; the message is for people.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw Refusal(c10::str(parts...));
}

// One visible line, cut to the size of the buffer.
void report(bitctl_engine_error* error, std::string_view text);

// What libtorch says, without its stack trace.
std::string reason_of(const c10::Error& error);

template <typename Work>
int guarded(bitctl_engine_error* error, Work&& work) {
  // OpenMP starts its threads in the first parallel loop, not when it is loaded.
  const BlockedSignals blocked;
  try {
    work();
    return 0;
  } catch (const c10::Error& e) {
    report(error, "torch: " + reason_of(e));
  } catch (const std::bad_alloc&) {
    report(error, "out of memory");
  } catch (const std::exception& e) {
    report(error, e.what());
  } catch (...) {
    report(error, "an exception of unknown type");
  }
  return 1;
}

}  // namespace bitctl::engine
