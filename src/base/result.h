// Expected trouble is a value: Result<T> holds a T or an Error, Status an Error or nothing.
// Exceptions of third-party libraries are caught in the file that calls the library.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace bitctl {

enum class ErrorKind {
  not_found,  // the thing named does not exist
  locked,     // somebody else holds it; the message names the holder
  damaged,    // it exists and is broken; the message says where
  invalid,    // the user or a peer asked for something that cannot be done
  io,         // the operating system refused; errno_value says why
  timeout,    // a deadline passed
};

struct Error {
  ErrorKind kind = ErrorKind::io;
  std::string message;  // one line: what, where, why, and how to mend it where that is known
  int errno_value = 0;
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Status = Result<void>;

inline tl::unexpected<Error> fail(ErrorKind kind, std::string message, int errno_value = 0) {
  return tl::unexpected<Error>(Error{kind, std::move(message), errno_value});
}

// "<what>: <text of errno>". Reads errno first, so it may be called right after the failed call.
tl::unexpected<Error> fail_errno(const std::string& what, int errno_value = errno);

// Hands an error on to a Result of another type.
template <typename T>
tl::unexpected<Error> forward(Result<T>&& result) {
  return tl::unexpected<Error>(std::move(result.error()));
}

}  // namespace bitctl
