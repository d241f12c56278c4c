#include "base/result.h"

#include <cstring>

namespace bitctl {

tl::unexpected<Error> fail_errno(const std::string& what, int errno_value) {
  const ErrorKind kind = errno_value == ENOENT || errno_value == ENOTDIR ? ErrorKind::not_found
                         : errno_value == ETIMEDOUT                      ? ErrorKind::timeout
                                                                         : ErrorKind::io;
  return fail(kind, what + ": " + std::strerror(errno_value), errno_value);
}

}  // namespace bitctl
